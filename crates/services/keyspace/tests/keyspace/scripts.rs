//! The golden scripts. `UPDATE_SCRIPTS=1` writes what came instead of comparing with it.

use crate::script::run;
use quorate_keyspace::Canary;

fn check(name: &str) {
    let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let wanted = std::fs::read_to_string(&path).unwrap();
    let came = run(&wanted, Canary::NONE);
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        std::fs::write(&path, came).unwrap();
        return;
    }
    for (n, (came, wanted)) in came.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(came, wanted, "{name}.txt, line {}", n + 1);
    }
    assert_eq!(came.lines().count(), wanted.trim_end().lines().count(), "{name}.txt");
}

macro_rules! scripts {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}
scripts!(put, delete, range, txn, claims, compact, leases, members, alarms, requests);
scripts!(branches, locks, attempts, lease_locks, resolve, together, several);
