//! What must hold when everybody is there again.

use crate::clients::Members;
use crate::ledger::{Ledger, Told};
use crate::money::Holding;
use crate::outside::Outside;
use crate::places::{BALANCE, Map, Place};
use quorate_client::{Client, Error};
use quorate_wire::etcdserverpb::RangeRequest;
use quorate_wire::quorate::{
    ListAlarmsRequest, ListTransactionsRequest, ShowTransactionRequest, TransactionState,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long anything may take to end when everybody is there.
const LIMIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until nothing is in doubt, anywhere: how long that took.
pub async fn settled(ledger: &Ledger, members: &Members, outside: Option<&Outside>) -> Duration {
    let (client, since) = (members.any(None), Instant::now());
    loop {
        let what = match in_doubt(&client, outside).await {
            None => return since.elapsed(),
            Some(what) => what,
        };
        if since.elapsed() > LIMIT {
            ledger.wrong(format!("after {LIMIT:?} {what}"));
            return since.elapsed();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Something that is in doubt, in words.
async fn in_doubt(client: &Client, outside: Option<&Outside>) -> Option<String> {
    // Those that are not over come first.
    let listed = client.transaction_list(ListTransactionsRequest { limit: 1 }).await;
    let Ok(listed) = listed else { return Some("nobody lists the transactions".to_owned()) };
    let over = |state| matches!(state, TransactionState::Committed | TransactionState::RolledBack);
    if let Some(open) = listed.transactions.iter().find(|it| !over(it.state())) {
        return Some(format!("a transaction is not over: {open:?}"));
    }
    for found in outside?.found().await {
        if found.prepared > 0 {
            return Some(format!("a database has {} prepared branches", found.prepared));
        }
    }
    None
}

/// Asks how every transfer ended whose client was not told.
pub async fn outcomes(ledger: &Ledger, members: &Members) -> Vec<Told> {
    let client = members.any(None);
    let mut told = ledger.told.lock().clone();
    for it in told.iter_mut().filter(|it| it.commits.is_none()) {
        let request = ShowTransactionRequest { id: it.id.clone() };
        it.commits = match client.transaction_show(request).await {
            Ok(shown) => shown.transaction.map(|it| it.state() == TransactionState::Committed),
            // There is none: it was never begun.
            Err(Error::Refused(_)) => Some(false),
            Err(error) => {
                ledger.wrong(format!("how {} ended is not told: {error}", it.id));
                None
            }
        };
    }
    told
}

/// The accounts of a keyspace, by circle: what they have, and how often they were changed.
async fn accounts(members: &Members, name: &str) -> Vec<(Holding, i64)> {
    let client = members.any(Some(name));
    let request =
        RangeRequest { key: "a/".into(), range_end: "a0".into(), ..RangeRequest::default() };
    let found = client.range(request).await.unwrap();
    let account = |value: &[u8]| Holding::parse(&String::from_utf8_lossy(value)).unwrap();
    found.kvs.iter().map(|kv| (account(&kv.value), kv.version - 1)).collect()
}

/// All the money is there, and every account was changed as often as transfers committed.
pub async fn judge(ledger: &Ledger, members: &Members, outside: Option<&Outside>, told: &[Told]) {
    let map = &ledger.map;
    let mut expected = BTreeMap::<usize, i64>::new();
    for place in told.iter().filter(|it| it.commits == Some(true)).flat_map(|it| &it.places) {
        *expected.entry(*place).or_default() += 1;
    }
    let circles = usize::try_from(map.circles).unwrap_or(usize::MAX);
    let (mut money, mut left) = (vec![0; circles], 0);
    let mut changes = BTreeMap::new();
    for (index, place) in map.places.iter().enumerate() {
        let Place::Keyspace(name) = place else { continue };
        let all = accounts(members, name).await;
        if all.len() != circles {
            ledger.wrong(format!("{name} has {} accounts, not {circles}", all.len()));
        }
        changes.insert(index, all.iter().map(|(_, changes)| changes).sum::<i64>());
        left += all.iter().map(|(holding, _)| holding.left).sum::<i64>();
        for (sum, (holding, _)) in money.iter_mut().zip(&all) {
            *sum += holding.balance + holding.left;
        }
    }
    let whole = BALANCE * i64::try_from(map.keyspaces().len()).unwrap_or(0);
    for (circle, sum) in money.iter().enumerate().filter(|(_, sum)| **sum != whole) {
        ledger.wrong(format!("at the end circle {circle} has {sum} in keyspaces, not {whole}"));
    }
    if let Some(outside) = outside {
        let found = outside.found().await;
        let at = map.keyspaces().len();
        changes.extend([(at, found[0].changes), (at + 1, found[1].changes)]);
        outside_money(ledger, map, found.iter().map(|it| it.money).sum(), left);
    }
    for (place, changes) in changes {
        let expected = expected.get(&place).copied().unwrap_or(0);
        if changes != expected {
            let place = &map.places[place];
            ledger.wrong(format!("{place:?}: {changes} changes by {expected} transfers"));
        }
    }
    match members.any(None).transaction_alarms(ListAlarmsRequest {}).await {
        Ok(told) if told.alarms.is_empty() => {}
        told => ledger.wrong(format!("alarms: {told:?}")),
    }
}

fn outside_money(ledger: &Ledger, map: &Map, found: i64, left: i64) {
    let began = 2 * BALANCE * i64::try_from(map.circles).unwrap_or(0);
    if found != began + left {
        ledger.wrong(format!("the databases have {found}, not {began} and {left} that came"));
    }
}
