//! What may be sent again.
//!
//! A server that answers `Unavailable` may have executed the call (its answer was lost, say), so
//! the code alone does not allow a change to be repeated. The texts below are etcd's own for
//! refusals that come before a request enters the log.

use tonic::{Code, Status};

/// Whether executing a call twice does the same as executing it once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Safety {
    /// It changes nothing, or the same thing again.
    Repeatable,
    /// It changes something, once, however often it is executed. Whoever gets no answer does not
    /// know whether it did.
    Idempotent,
    /// It must not be executed twice.
    Once,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The answer is final.
    Final,
    /// Ask another endpoint.
    Again,
    /// It may have been executed, and may not be repeated.
    Unknown,
}

/// Refusals that certainly came before anything was done.
const NOT_EXECUTED: [&str; 3] =
    ["etcdserver: no leader", "etcdserver: too many requests", "etcdserver: unhealthy cluster"];

/// Whether a status says that nothing was done, or, of a transaction, that it was not begun.
pub(crate) fn certainly_not_executed(status: &Status) -> bool {
    NOT_EXECUTED.contains(&status.message())
        || (status.code() == Code::Unavailable && status.message().starts_with("quorate: "))
}

/// Whether a refusal is the same whoever says it: the others depend on what a member has heard of.
pub(crate) fn holds_everywhere(status: &Status) -> bool {
    matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument)
}

/// Judges the status an attempt ended with.
pub(crate) fn judge(status: &Status, safety: Safety) -> Verdict {
    if NOT_EXECUTED.contains(&status.message()) {
        return Verdict::Again;
    }
    // A connection that broke within the call is reported with an error of the transport, by codes
    // of many kinds.
    let unanswered = std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled);
    match (unanswered, safety) {
        (false, _) => Verdict::Final,
        (true, Safety::Repeatable | Safety::Idempotent) => Verdict::Again,
        (true, Safety::Once) => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_repeated_only_if_it_certainly_was_not_executed() {
        let lost = Status::unavailable("etcdserver: request timed out");
        assert_eq!(judge(&lost, Safety::Once), Verdict::Unknown);
        assert_eq!(judge(&lost, Safety::Repeatable), Verdict::Again);
        for text in NOT_EXECUTED {
            assert_eq!(judge(&Status::unavailable(text), Safety::Once), Verdict::Again);
        }
    }

    #[test]
    fn what_the_connection_says_is_no_refusal() {
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::Internal] {
            let mut status = Status::new(code, "h2 protocol error");
            assert_eq!(judge(&status, Safety::Once), Verdict::Final, "the member says so");
            status.set_source(std::sync::Arc::new(std::io::Error::other("GOAWAY")));
            assert_eq!(judge(&status, Safety::Once), Verdict::Unknown);
            assert_eq!(judge(&status, Safety::Idempotent), Verdict::Again);
        }
    }

    #[test]
    fn a_refusal_is_final() {
        for status in [
            Status::invalid_argument("etcdserver: key is not provided"),
            Status::out_of_range("etcdserver: mvcc: required revision has been compacted"),
            Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
            Status::internal("no transport behind it"),
        ] {
            assert_eq!(judge(&status, Safety::Repeatable), Verdict::Final, "{status:?}");
            assert_eq!(judge(&status, Safety::Once), Verdict::Final, "{status:?}");
        }
    }
}
