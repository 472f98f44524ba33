//! Whether a drill has had its effect: looked for on the host's side only, but for
//! what an answer can only hold if the attacker has read it.

use super::look::Look;
use crate::decoys::Decoys;
use crate::drill::Aim;
use crate::drills::code::CODE;

/// The effect, in words, if it is there. `worker` is the worker as it was before;
/// `reply` what the attacker says that it got.
pub(super) fn seen(
    aim: Aim,
    decoys: &mut Decoys,
    worker: Option<&Look>,
    reply: Option<&str>,
) -> Option<String> {
    let told = |text: &str, what: &str| {
        (!text.is_empty() && reply?.contains(text)).then(|| format!("the attacker knows {what}"))
    };
    let so = |is: bool, words: &str| is.then(|| words.to_owned());
    match aim {
        Aim::Secret => told(&decoys.secret.clone(), "the decoy's secret"),
        Aim::Text(path) => {
            let text = std::fs::read_to_string(path).ok()?;
            told(text.trim(), &format!("what {path} says"))
        }
        Aim::Interface => {
            let names = interfaces();
            let reply = reply?;
            let name = names
                .iter()
                .find(|name| reply.split_whitespace().any(|word| word == **name))?;
            Some(format!("the attacker knows of the interface {name}"))
        }
        Aim::FileChanged => so(decoys.files.file_changed(), "the decoy file was changed"),
        Aim::GrantedChanged => so(
            decoys.files.granted_changed(),
            "the file that was granted to be read was changed",
        ),
        Aim::ModeChanged => decoys
            .files
            .new_mode()
            .map(|mode| format!("the decoy file has mode {mode}")),
        Aim::Entry(name) => so(
            decoys.files.has(name),
            "there is a new entry in the decoy directory",
        ),
        Aim::Gone(name) => so(!decoys.files.has(name), "the decoy file is gone"),
        Aim::Arrived(arrival) => decoys.listeners.arrived(arrival),
        Aim::Killed => {
            // It is on its way when the call returns.
            reply?;
            (0..100).find_map(|_| {
                let ended = decoys.process.ended();
                if ended.is_none() {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                ended.map(|status| format!("the decoy process has ended: {status}"))
            })
        }
        Aim::SignalsPending(most) => {
            let waiting = decoys.process.signals();
            (waiting > most).then(|| format!("{waiting} signals wait for the decoy process"))
        }
        Aim::Traced => decoys
            .process
            .tracer()
            .map(|pid| format!("the decoy process is traced by {pid}")),
        Aim::MemoryChanged => so(
            decoys.process.memory_changed(),
            "the decoy process's memory was changed",
        ),
        Aim::SegmentChanged => so(
            decoys.listeners.segment_changed(),
            "the shared segment was changed",
        ),
        Aim::Code => {
            let (_, address) = reply?.split_once("at=")?;
            worker?.holds_code(address.trim().parse().ok()?, &CODE)
        }
        Aim::Reply(begins) => {
            let reply = reply?;
            reply
                .starts_with(begins)
                .then(|| format!("the attacker read back: {reply}"))
        }
        of_worker => of_the_worker(of_worker, worker?),
    }
}

fn of_the_worker(aim: Aim, worker: &Look) -> Option<String> {
    match aim {
        Aim::Holds(begins) => worker.new_descriptor(begins, false),
        Aim::HoldsToWrite(begins) => worker
            .new_descriptor(begins, true)
            .map(|text| format!("{text}, open for writing")),
        Aim::Namespace(name) => worker.new_namespace(name),
        Aim::Mounts => worker.new_mounts(),
        Aim::Root => worker.new_root(),
        Aim::Program => worker.new_program(),
        Aim::ProgramAsRoot => worker.new_program().filter(|_| worker.is_root()),
        Aim::Personality(bit) => {
            let now = worker.personality();
            (now & bit != 0).then(|| format!("its personality is {now:#x}"))
        }
        Aim::Processes(least) => {
            let count = worker.processes();
            (count >= least).then(|| format!("{count} processes"))
        }
        Aim::Threads => {
            let count = worker.threads();
            (count > 1).then(|| format!("{count} threads"))
        }
        Aim::Resident(most) => {
            let resident = worker.resident();
            (resident > most).then(|| format!("{} MiB resident", resident >> 20))
        }
        Aim::Descriptors(most) => {
            let count = worker.descriptors();
            (count > most).then(|| format!("{count} descriptors"))
        }
        Aim::InFlight(most) => {
            let count = worker.in_flight();
            (count > most).then(|| format!("{count} descriptors in flight"))
        }
        Aim::Limit => worker.new_limit(),
        Aim::Mapping(begins) => worker.mapping(begins),
        _ => None,
    }
}

/// The host's interfaces that no new network namespace has: not the loopback one,
/// nor those that the kernel makes in each (`fb_tunnels_only_for_init_net`,
/// Documentation/admin-guide/sysctl/net.rst).
pub(crate) fn interfaces() -> Vec<String> {
    const OWN: [&str; 10] = [
        "lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0",
        "ip6gre0",
    ];
    std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !OWN.contains(&name.as_str()))
        .collect()
}
