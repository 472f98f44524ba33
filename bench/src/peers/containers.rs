//! Boxes for native programs: a static one that prints the line.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{LINE, Materials, Peer, busybox, bwrap_around, installed, runsc_around};

/// bubblewrap with everything unshared.
pub(super) fn bwrap(_materials: &Materials) -> Peer {
    let command = busybox().and_then(|busybox| {
        let mut command = bwrap_around(&[&busybox])?;
        command.arg(busybox).args(["echo", LINE]);
        Ok(command)
    });
    Peer::new(
        "peers/bwrap",
        "bwrap --unshare-all of a static program (busybox echo)",
        command,
    )
}

/// crun with its own choice of settings, but for control groups, which not every machine
/// lets one make.
pub(super) fn crun(materials: &Materials) -> Peer {
    let command = bundle(materials).and_then(|bundle| {
        let mut command = Command::new(installed("crun")?);
        command.args(["--cgroup-manager=disabled", "--root"]);
        command
            .arg(materials.path("crun"))
            .args(["run", "--bundle"]);
        command.arg(bundle).arg("lazaret-bench");
        Ok(command)
    });
    Peer::new(
        "peers/crun",
        "crun run of a static program (busybox echo), without control groups",
        command,
    )
}

/// A directory with a root and a description: crun's own, with another command.
fn bundle(materials: &Materials) -> Result<std::path::PathBuf, String> {
    let (crun, busybox) = (installed("crun")?, busybox()?);
    let bundle = materials.path("bundle");
    let words = |error: std::io::Error| format!("the bundle for crun: {error}");
    fs::create_dir_all(bundle.join("rootfs/bin")).map_err(words)?;
    fs::copy(busybox, bundle.join("rootfs/bin/busybox")).map_err(words)?;
    let mut spec = Command::new(crun);
    spec.arg("spec").current_dir(&bundle);
    if !rustix::process::geteuid().is_root() {
        spec.arg("--rootless");
    }
    let made = spec.output().map_err(words)?;
    if !made.status.success() {
        return Err(format!(
            "crun spec: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ));
    }
    describe(&bundle.join("config.json")).map_err(words)?;
    Ok(bundle)
}

fn describe(path: &Path) -> std::io::Result<()> {
    let mut described: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    let process = &mut described["process"];
    process["terminal"] = false.into();
    process["args"] = ["/bin/busybox", "echo", LINE].as_slice().into();
    fs::write(path, serde_json::to_vec(&described)?)
}

/// gVisor.
pub(super) fn runsc(_materials: &Materials) -> Peer {
    let command = busybox().and_then(|busybox| {
        let mut command = runsc_around()?;
        command.arg(busybox).args(["echo", LINE]);
        Ok(command)
    });
    Peer::new(
        "peers/runsc",
        "runsc do (ptrace) of a static program (busybox echo)",
        command,
    )
}
