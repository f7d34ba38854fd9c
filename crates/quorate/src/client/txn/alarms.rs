//! `quorate txn alarms` and `acknowledge`.

use super::super::Connection;
use super::print;
use crate::exit::Failure;
use crate::output::{Output, print_json, say};
use quorate_wire::quorate::{AcknowledgeAlarmsRequest, ListAlarmsRequest};

pub(super) async fn list(connection: &Connection) -> Result<(), Failure> {
    let listed = connection.client()?.transaction_alarms(ListAlarmsRequest {}).await?;
    if listed.more {
        let n = listed.alarms.len();
        eprintln!("These {n} are not all: see to some, acknowledge them, and ask again.");
    }
    match connection.output {
        Output::Json => return print_json(&print::alarms_json(&listed.alarms)),
        Output::Table if listed.alarms.is_empty() => say!("no alarms"),
        Output::Table => say!("{}", print::alarms(&listed.alarms)),
    }
    Ok(())
}

pub(super) async fn acknowledge(
    connection: &Connection,
    transaction: String,
    branch: Option<String>,
) -> Result<(), Failure> {
    let branch = branch.unwrap_or_default();
    let request = AcknowledgeAlarmsRequest { transaction, branch };
    let ended = connection.client()?.transaction_acknowledge(request).await?.alarms;
    if connection.output == Output::Json {
        return print_json(&print::alarms_json(&ended));
    }
    for alarm in ended {
        say!("OK, {}, branch {}: acknowledged", alarm.transaction, alarm.branch);
    }
    Ok(())
}
