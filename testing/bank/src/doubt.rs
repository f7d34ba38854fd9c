//! How long the transactions of a killed member stay in doubt.
//!
//! Of each it is asked whether its record says that it is over, or there is none; and then its
//! accounts in keyspaces are read, which waits for whoever still has a lock on them.

use crate::clients::Members;
use crate::ledger::{Doubt, Flight, Ledger};
use crate::places::{Place, key};
use crate::requests::range;
use futures_util::future::join_all;
use quorate_client::{Client, Error};
use quorate_wire::quorate::{ShowTransactionRequest, TransactionState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);
/// Longer than this nothing may be in doubt, whatever a laden machine does.
const LIMIT: Duration = Duration::from_secs(60);

/// The survivors, as clients see them.
struct Survivors {
    /// The member that died.
    dead: u64,
    records: Client,
    keyspaces: BTreeMap<usize, Client>,
}

/// Watches what was under way at a member that died at `since`, until none of it is in doubt.
pub async fn watch(
    ledger: Arc<Ledger>,
    members: Members,
    dead: usize,
    flights: Vec<(String, Flight)>,
    since: Instant,
) {
    let alive: Vec<usize> = (0..members.addresses.len()).filter(|node| *node != dead).collect();
    let client = |keyspace| members.client(&alive, keyspace, Duration::from_secs(2));
    let keyspaces = ledger.map.places.iter().enumerate().filter_map(|(index, place)| {
        let Place::Keyspace(name) = place else { return None };
        Some((index, client(Some(name))))
    });
    let (dead, keyspaces) = (members.ids[dead], keyspaces.collect());
    let it = Survivors { dead, records: client(None), keyspaces };
    let each = flights.iter().map(|(id, flight)| over(&it, id, flight, since));
    let each: Vec<Duration> = join_all(each).await;
    for ((id, _), took) in flights.iter().zip(&each) {
        if *took >= LIMIT {
            ledger.wrong(format!("{id} was in doubt for {took:?} after its coordinator's death"));
        }
    }
    ledger.doubts.lock().push(Doubt { each });
}

async fn over(it: &Survivors, id: &str, flight: &Flight, since: Instant) -> Duration {
    while since.elapsed() < LIMIT {
        let request = ShowTransactionRequest { id: id.to_owned() };
        let over = match it.records.transaction_show(request).await {
            Ok(shown) => {
                use TransactionState::{Committed, RolledBack};
                let told = shown.transaction.unwrap_or_default();
                // Whom the dead member had not heard of yet began anew elsewhere.
                let anew = told.epoch == 1 && told.coordinator != it.dead;
                anew || matches!(told.state(), Committed | RolledBack)
            }
            // There is none, so nothing was decided; a branch may have a lock all the same.
            Err(Error::Refused(_)) => true,
            Err(_) => false,
        };
        if over && readable(it, flight).await {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    since.elapsed()
}

async fn readable(it: &Survivors, flight: &Flight) -> bool {
    let read = flight.places.iter().filter_map(|place| it.keyspaces.get(place));
    let read = read.map(|client| client.range(range(key(flight.circle))));
    join_all(read).await.iter().all(Result::is_ok)
}
