//! `lazaret audit --live`: the workers that run, beside their receipts.

use lazaret::live_worker::{self, LiveWorker, Standing};
use serde::Serialize;

use crate::columns::columns;
use crate::failure::Failure;
use crate::host_options::Data;
use crate::output::{self, BAD, harmless};

/// A worker and how it looks.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    worker: LiveWorker,
    #[serde(flatten)]
    standing: Standing,
}

pub(super) fn execute(data: &Data, json: bool) -> Result<u8, Failure> {
    data.must_exist()?;
    let (mut rows, mut damaged) = (Vec::new(), Vec::new());
    for read in live_worker::list(&data.data)? {
        match read {
            Err(error) => damaged.push(error.to_string()),
            Ok(worker) => match worker.look() {
                Standing::Ended => {}
                standing => rows.push(Row { worker, standing }),
            },
        }
    }
    match json {
        true => {
            #[derive(Serialize)]
            struct Live<'a> {
                workers: &'a [Row],
                damaged: &'a [String],
            }
            output::json(
                "lazaret.audit-live/v1",
                Live {
                    workers: &rows,
                    damaged: &damaged,
                },
            )?;
        }
        false => output::print(&table(&rows))?,
    }
    for error in &damaged {
        output::note(&format!("{}\n", harmless(error, false)));
    }
    let bad = rows
        .iter()
        .filter(|row| row.standing != Standing::Same)
        .count();
    match bad + damaged.len() {
        0 => Ok(0),
        count => Err(Failure::LiveWorkers(count)),
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no workers\n".to_owned();
    }
    let cells: Vec<[String; 5]> = rows
        .iter()
        .map(|Row { worker, standing }| {
            [
                worker.pid.to_string(),
                worker.host_pid.to_string(),
                match &worker.subject.tenant {
                    Some(name) => name.clone(),
                    None => format!("({})", worker.subject.worker),
                },
                worker.receipt["grade"].as_str().unwrap_or("?").to_owned(),
                match standing {
                    Standing::Same => "as verified".to_owned(),
                    Standing::Different(differences) => {
                        format!("{} differences", differences.len())
                    }
                    Standing::Unseen(_) => "can't be looked at".to_owned(),
                    _ => "unknown; see --json".to_owned(),
                },
            ]
        })
        .collect();
    let mut text = columns(["WORKER", "HOST", "OF", "GRADE", "NOW"], &cells).join("\n") + "\n";
    for Row { worker, standing } in rows {
        let lines: &[String] = match standing {
            Standing::Different(differences) => differences,
            Standing::Unseen(why) => std::slice::from_ref(why),
            _ => &[],
        };
        for line in lines {
            text += &format!("{BAD}{}{BAD:#}: {}\n", worker.pid, harmless(line, false));
        }
    }
    text
}
