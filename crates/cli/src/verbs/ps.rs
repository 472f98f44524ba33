//! `lazaret ps`: which tenants there are.

use clap::Args;
use lazaret::TenantInfo;
use serde::Serialize;

use crate::columns::columns;
use crate::failure::Failure;
use crate::host_options::Data;
use crate::output::{self, BAD};
use crate::values::size::human;

/// List tenants
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lazaret ps --json

Exit codes: 1 if any tenant can't be read; the others are listed all the same.")]
pub(crate) struct Ps {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

/// One tenant, or why nothing is known of it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row {
    Tenant(Box<TenantInfo>),
    Damaged { name: String, error: String },
}

#[derive(Debug, Serialize)]
struct List {
    tenants: Vec<Row>,
}

impl Ps {
    pub(crate) fn execute(self) -> Result<u8, Failure> {
        let tenants = if self.data.exists() {
            self.rows()?
        } else {
            Vec::new()
        };
        let damaged = tenants
            .iter()
            .filter(|row| matches!(row, Row::Damaged { .. }))
            .count();
        match self.json {
            true => output::json("lazaret.ps/v1", List { tenants })?,
            false => output::print(&table(&tenants))?,
        }
        match damaged {
            0 => Ok(0),
            count => Err(Failure::Damaged(count)),
        }
    }

    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let host = self.data.host()?;
        let row = |name: String| match host.tenant(&name) {
            Ok(tenant) => Row::Tenant(Box::new(tenant.info())),
            Err(error) => Row::Damaged {
                name,
                error: output::chain(&error),
            },
        };
        Ok(host.tenants()?.into_iter().map(row).collect())
    }
}

/// Rows in columns that are as wide as they must be.
fn table(rows: &[Row]) -> String {
    let cells: Vec<[String; 7]> = rows
        .iter()
        .map(|row| match row {
            Row::Tenant(info) => [
                info.name.clone(),
                info.version.to_string(),
                human(info.heap_bytes),
                human(info.stable_bytes),
                human(info.disk_bytes),
                info.module.chars().take(12).collect(),
                info.methods.len().to_string(),
            ],
            Row::Damaged { name, .. } => [
                name.clone(),
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
            ],
        })
        .collect();
    let titles = [
        "NAME", "VERSION", "HEAP", "STABLE", "DISK", "MODULE", "METHODS",
    ];
    let mut text = String::new();
    for (line, row) in columns(titles, &cells)
        .iter()
        .zip(std::iter::once(None).chain(rows.iter().map(Some)))
    {
        text.push_str(line);
        let remark = match row {
            Some(Row::Damaged { error, .. }) => Some(error.clone()),
            Some(Row::Tenant(info)) => info
                .quarantined
                .as_ref()
                .map(|why| format!("in quarantine: {}", why.reason)),
            None => None,
        };
        if let Some(remark) = remark {
            text.push_str(&format!(
                "  {BAD}{}{BAD:#}",
                output::harmless(&remark, false)
            ));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_what_is_known_and_what_is_damaged() {
        let info = TenantInfo {
            name: "counter".into(),
            principal: String::new(),
            module: "0123456789abcdef".into(),
            version: 3,
            heap_bytes: 64 << 10,
            stable_bytes: 0,
            disk_bytes: 1536,
            methods: vec!["update inc".into(), "query get".into()],
            ..TenantInfo::default()
        };
        let damaged = Row::Damaged {
            name: "x".into(),
            error: "torn".into(),
        };
        let text = anstream::adapter::strip_str(&table(&[Row::Tenant(Box::new(info)), damaged]))
            .to_string();
        assert_eq!(
            text,
            "NAME     VERSION  HEAP      STABLE  DISK     MODULE        METHODS\n\
             counter  3        64.0 KiB  0 B     1.5 KiB  0123456789ab  2\n\
             x        -        -         -       -        -             -  torn\n"
        );
    }
}
