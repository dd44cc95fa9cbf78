//! `audit`: who changed what, and whether the record still holds.

use config_center_core::fleet::audit::{Head, Record, verify};

use super::{
    Context,
    exit::{Exit, Failure},
    flags,
    flags::Format,
    output::Output,
    table::{Cell, Table, age},
};
use crate::fleet::audit::{self, now_ms};

pub(crate) async fn show(context: &Context, args: &flags::Audit) -> Result<Exit, Failure> {
    let found = audit::read(&context.client, &context.namespace).await?;
    if args.verify {
        return verdict(
            context.out,
            found.records.len(),
            found.broken.map(|broken| broken.to_string()),
        );
    }
    if let Some(broken) = &found.broken {
        context
            .out
            .remark(&format!("configctl: the audit chain is broken: {broken}"));
    }
    let first = found.records.len().saturating_sub(args.last);
    let records = &found.records[first..];
    match context.out.format {
        // A copy to keep: it verifies without the store.
        Format::Json | Format::Yaml => context.out.document(&records)?,
        Format::Name => {
            for record in records {
                context.out.line(&record.seq.to_string())?;
            }
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new([
                "SEQ", "WHEN", "ACTOR", "SOURCE", "ACTION", "TARGET", "SUMMARY", "REASON",
            ]);
            for Record { seq, event, .. } in records {
                let cells: [Cell; 8] = [
                    seq.to_string().into(),
                    format!("{} ago", age(now_ms().saturating_sub(event.at_ms))).into(),
                    event.actor.as_str().into(),
                    event.source.as_str().into(),
                    event.action.as_str().into(),
                    event.target.as_str().into(),
                    event.summary.as_str().into(),
                    event.reason.as_str().into(),
                ];
                table.row(cells);
            }
            context.out.table(&table)?;
        }
    }
    Ok(if found.broken.is_none() {
        Exit::Done
    } else {
        Exit::AnsweredNo
    })
}

/// Verifies a copy made with `audit -o json`, without a store.
pub(crate) fn verify_file(out: Output, path: &std::path::Path) -> Result<Exit, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Exit::LocalIo,
            format!("cannot read {}: {error}", path.display()),
        )
    })?;
    let records: Vec<Record> = serde_json::from_str(&text).map_err(|error| {
        Failure::invalid(format!(
            "{}: this is no copy of the audit: {error}",
            path.display()
        ))
    })?;
    let no_head: Option<&Head> = None;
    let broken = verify(&records, no_head)
        .err()
        .map(|broken| broken.to_string());
    verdict(out, records.len(), broken)
}

fn verdict(out: Output, records: usize, broken: Option<String>) -> Result<Exit, Failure> {
    match out.format {
        Format::Json | Format::Yaml => {
            out.document(&serde_json::json!({ "records": records, "broken": broken }))?;
        }
        Format::Table | Format::Wide | Format::Name => match &broken {
            None => out.line(&format!("the audit chain holds: {records} records"))?,
            Some(broken) => out.line(&format!("the audit chain is broken: {broken}"))?,
        },
    }
    Ok(if broken.is_none() {
        Exit::Done
    } else {
        Exit::AnsweredNo
    })
}
