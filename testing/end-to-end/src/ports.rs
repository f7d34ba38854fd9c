//! Free ports, below those that the system hands out by itself.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u16 = 12_000;
const LAST: u16 = 30_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// `n` consecutive ports that are free now, and that this process does not hand out again.
pub fn ports(n: u16) -> u16 {
    // Two runs at the same time begin at different places.
    let offset = std::process::id() % 900 * 20;
    loop {
        let first = at(offset + NEXT.fetch_add(n.into(), Ordering::SeqCst));
        if (first..first + n).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

/// The port at a place on the circle. It is the same circle whatever number is asked for, or the
/// first ports of a new turn would be the last of the one before. The last of a request may so lie
/// some beyond `LAST`.
fn at(place: u32) -> u16 {
    FIRST + (place % u32::from(LAST - FIRST)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_turn_takes_nothing_of_the_one_before() {
        let end = u32::from(LAST - FIRST);
        // Three nodes with two ports each just before the end, and one port after them.
        assert_eq!(at(end - 2), LAST - 2);
        assert_eq!(at(end - 2 + 6), FIRST + 4);
        assert_eq!(at(end + 68 + 6), at(end + 68) + 6);
    }
}
