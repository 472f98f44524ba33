//! `lazaret export`: a tenant in one file.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use lazaret::{Exported, Host};

use crate::failure::Failure;
use crate::host_options::Data;
use crate::output;
use crate::progress::{Bar, Unit};
use crate::values::size::human;

/// Write a tenant as an archive: one file that holds all of it
///
/// Its newest version or a snapshot, with its module, compressed and with checksums.
/// `lazaret import` makes a tenant of it, here or elsewhere. The file gets its
/// name when it is whole, and replaces one that has it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lazaret export counter counter.lazaret
  lazaret export counter monday.lazaret --from monday
  lazaret export counter - | ssh elsewhere lazaret import counter -")]
pub(crate) struct Export {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
    /// The archive, or - for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A snapshot of the tenant, rather than its newest version
    #[arg(long, value_name = "TAG")]
    from: Option<String>,
    #[command(flatten)]
    data: Data,
}

impl Export {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        lazaret::check_name(&self.name)?;
        if self.file == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(Failure::Terminal);
            }
            let host = self.data.host()?;
            // Not through `stdout()`, which looks for lines.
            let out = io::stdout().as_fd().try_clone_to_owned();
            let mut out = File::from(out.map_err(Failure::Output)?);
            self.write(&host, &mut out)?;
            return Ok(0);
        }
        let host = self.data.host()?;
        let exported = self.write_file(&host)?;
        output::print(&format!(
            "exported {}: {}, {} pages\n",
            self.name,
            human(exported.bytes),
            exported.pages
        ))?;
        Ok(0)
    }

    fn write(&self, host: &Host, to: &mut dyn Write) -> Result<Exported, Failure> {
        let mut bar = None;
        let exported = host.export(&self.name, self.from.as_deref(), to, &mut |progress| {
            bar.get_or_insert_with(|| Bar::new("exporting", progress.total, Unit::Pages))
                .set(progress.pages);
        })?;
        Ok(exported)
    }

    /// Makes the file aside, and gives it its name when it is whole and on disk.
    fn write_file(&self, host: &Host) -> Result<Exported, Failure> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| Failure::WriteFile { path, source }
        };
        // A pipe or a device is written as it is.
        if fs::metadata(&self.file).is_ok_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(&self.file);
            return self.write(host, &mut file.map_err(fail(&self.file))?);
        }
        let mut aside = self.file.clone().into_os_string();
        aside.push(format!(".part-{}", std::process::id()));
        let aside = PathBuf::from(aside);
        let mut file = File::create_new(&aside).map_err(fail(&aside))?;
        let written = self.write(host, &mut file).and_then(|exported| {
            file.sync_all().map_err(fail(&aside))?;
            fs::rename(&aside, &self.file).map_err(fail(&self.file))?;
            Ok(exported)
        });
        written.inspect_err(|_| {
            // The first error is the one to be told.
            let _ = fs::remove_file(&aside);
        })
    }
}
