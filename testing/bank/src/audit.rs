//! Readers: one transaction reads a circle's accounts in every keyspace, and finds its money whole.

use crate::clients::{Members, verdict};
use crate::ledger::Ledger;
use crate::money::Holding;
use crate::places::BALANCE;
use crate::requests::audit;
use quorate_base::Rng;
use quorate_client::Client;
use quorate_wire::etcdserverpb::response_op::Response as Done;
use quorate_wire::quorate::BranchAnswer;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);

/// Reads until it is told to stop.
pub async fn run(me: u64, members: Members, ledger: Arc<Ledger>, mut rng: Rng) {
    let client = members.any(None);
    let run = rng.next_u64() >> 40;
    let mut n = 0u64;
    while ledger.goes_on() {
        n += 1;
        let circle = ledger.map.circle(&mut rng);
        if !look(&client, &ledger, &format!("r{me}-{run:x}-{n}"), circle).await {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether there was an answer.
async fn look(client: &Client, ledger: &Ledger, id: &str, circle: u64) -> bool {
    let Ok(ran) = client.transaction_run(audit(id, &ledger.map, circle)).await else {
        return false;
    };
    // Who asks again gets no answers: they were true under locks that are gone.
    let answered = ran.answers.len() == ledger.map.keyspaces().len();
    if verdict(&ran) != Some(true) || !answered {
        return true;
    }
    let seen: Option<Vec<Holding>> = ran.answers.iter().map(holding).collect();
    let Some(seen) = seen else { return true };
    let money: i64 = seen.iter().map(|it| it.balance + it.left).sum();
    let whole = BALANCE * i64::try_from(seen.len()).unwrap_or(0);
    if money != whole {
        ledger.wrong(format!("a reader saw {money} in circle {circle}, not {whole}: {seen:?}"));
    }
    ledger.audits.fetch_add(1, Relaxed);
    true
}

fn holding(answer: &BranchAnswer) -> Option<Holding> {
    let Some(Done::ResponseRange(range)) = &answer.txn.as_ref()?.responses.first()?.response else {
        return None;
    };
    Holding::parse(&String::from_utf8_lossy(&range.kvs.first()?.value))
}
