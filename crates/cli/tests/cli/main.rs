//! The command as its users meet it: one file a promise.

mod archives;
mod bad_input;
mod budgets;
mod calls;
mod checkpoint;
mod data_directory;
mod exit_codes;
mod fsck;
mod grants;
mod groups;
mod help;
mod incidents;
mod inspection;
mod learn;
mod lifecycle;
mod live_workers;
mod redteam;
mod report;
mod signals;
mod snapshots;
mod state_hash;
mod streams;
mod support;
mod terminal;
