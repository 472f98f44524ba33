//! `lazaret man`: manual pages.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output;

/// Print the manual page, or write one for every verb
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret man --out ~/.local/share/man/man1 && man lazaret-run")]
pub(crate) struct Man {
    /// Write a page for every verb into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        // As the generator of all pages does it.
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        let Some(directory) = self.out else {
            let mut page = Vec::new();
            Page::new(command)
                .render(&mut page)
                .map_err(Failure::Output)?;
            output::write(&page)?;
            return Ok(0);
        };
        let fail = |source| Failure::WriteFile {
            path: directory.clone(),
            source,
        };
        fs::create_dir_all(&directory).map_err(fail)?;
        clap_mangen::generate_to(command, &directory).map_err(fail)?;
        Ok(0)
    }
}
