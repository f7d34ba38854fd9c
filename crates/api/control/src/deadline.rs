//! How long a client waits for its answer, so that it hears why there is none.
//!
//! Invariant: what is under way when the time is up goes on: a deadline is about the answer alone.

use quorate_etcd::parse_timeout;
use quorate_resource_managers::Deadline;
use std::time::Duration;
use tonic::Request;

/// The metadata entry that gRPC has for it.
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// The longest that an answer is taken to be on its way.
const LONGEST_WAY: Duration = Duration::from_millis(500);

/// Until when the client of this request has to be answered: `usual`, or sooner if it does not wait
/// for so long.
pub(crate) fn of<T>(request: &Request<T>, usual: Duration) -> Deadline {
    Deadline::within(within(request, usual))
}

/// The same, from now.
pub(crate) fn within<T>(request: &Request<T>, usual: Duration) -> Duration {
    let told = request.metadata().get(GRPC_TIMEOUT);
    let told = told.and_then(|told| parse_timeout(told.as_encoded_bytes()));
    told.map_or(usual, |told| answered_within(told, usual))
}

/// How long to take for whoever waits so long: `usual`, or a little less than that.
pub(crate) fn answered_within(waits: Duration, usual: Duration) -> Duration {
    usual.min(waits.saturating_sub((waits / 10).min(LONGEST_WAY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(15);

    fn told(text: &str) -> Duration {
        let mut request = Request::new(());
        request.metadata_mut().insert(GRPC_TIMEOUT, text.parse().unwrap());
        within(&request, USUAL)
    }

    #[test]
    fn whoever_waits_less_is_answered_a_little_before_it_gives_up() {
        assert_eq!(within(&Request::new(()), USUAL), USUAL);
        assert_eq!(told("2S"), Duration::from_millis(1_800));
        assert_eq!(told("2000000u"), Duration::from_millis(1_800));
        assert_eq!(told("100m"), Duration::from_millis(90));
        assert_eq!(told("10S"), Duration::from_millis(9_500));
        assert_eq!(told("99999999H"), USUAL, "it waits longer than we do");
        for senseless in ["", "S", "5", "5s", "-5S", "123456789S", "5 S"] {
            assert_eq!(told(senseless), USUAL, "{senseless:?}");
        }
    }
}
