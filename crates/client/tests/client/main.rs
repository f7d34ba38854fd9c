//! The client, against members made of scripts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod failover;
mod runner;

use quorate_client::{Client, Config};
use std::time::Duration;
use tokio::net::TcpListener;

/// An address where nobody listens.
async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

fn client(endpoints: &[&str]) -> Client {
    let mut config = Config::of(endpoints.iter().copied()).unwrap();
    config.timeout = Duration::from_secs(3);
    config.attempt_timeout = Duration::from_millis(100);
    Client::new(config)
}
