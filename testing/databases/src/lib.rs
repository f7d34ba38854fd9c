//! Real database servers for tests, each in a folder and on a loopback port of its own, and a
//! service that takes part in transactions over HTTP.
//!
//! Nothing of the machine's own servers is touched: a server is a process of the test, made by
//! `initdb` or `mariadb-install-db` in a temporary folder, as the user `nobody` where the test runs
//! as root (both servers refuse root).
//!
//! Invariant: whatever a test starts ends with it, however it ends. A small supervisor in shell
//! holds each server; when its standard input closes, because the test ended or was killed, it
//! kills the server and removes the folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod hotel;
mod mariadb;
mod postgres;
mod programs;
mod proxy;
mod supervisor;

pub use hotel::{Hotel, HotelServer, Stage};
pub use mariadb::MariaDb;
pub use postgres::Postgres;
pub use proxy::{Cut, Proxy};

/// The password of every account that the servers are made with.
pub const PASSWORD: &str = "only-for-tests";

/// Whether both servers can be started.
///
/// # Errors
/// What is not installed.
pub fn programs_are_there() -> Result<(), String> {
    programs::find_all(postgres::PROGRAMS, postgres::PACKAGE)?;
    programs::find_all(mariadb::PROGRAMS, mariadb::PACKAGE).map(drop)
}

/// Whether missing servers are a failure: in CI, where `.ci/run` has installed them.
pub fn required() -> bool {
    std::env::var_os("QUORATE_E2E_REQUIRE").is_some_and(|value| value == "1")
}

/// Says that a test is passed over, which nobody should overlook.
///
/// # Panics
/// If it is [`required`].
pub fn missing(test: &str, why: &str) {
    assert!(!required(), "{test}: {why}, and QUORATE_E2E_REQUIRE=1 demands it");
    // Not through print!, which the test harness would keep to itself.
    let text = format!("\n*** NOT TESTED: {test}: {why}. `.ci/run` installs it.\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
}
