//! Free ports, below those that the system hands out by itself.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const LAST: u16 = 30_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// `n` consecutive ports that are free now, and that this process does not hand out again.
pub fn ports(n: u16) -> u16 {
    // Two runs at the same time begin at different places.
    let offset = (std::process::id() % 900) as u16 * 20;
    loop {
        let taken = NEXT.fetch_add(n, Ordering::SeqCst);
        let first = FIRST + (offset + taken) % (LAST - FIRST - n);
        if (first..first + n).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}
