//! Resource managers against real servers, each started by the test that needs it.
//!
//! Where a server is not installed the tests say so on standard error, and fail where
//! `QUORATE_E2E_REQUIRE=1`. What every database must do is in `cases`, and is run on each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bank;
mod cases;
mod http;
mod lost_connections;
mod mariadb;
mod mariadb_bank;
mod postgres;
mod postgres_bank;
mod recovery_cases;
