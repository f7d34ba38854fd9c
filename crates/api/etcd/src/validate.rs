//! Whether a request makes sense, before anything is done with it. The order of the checks is
//! etcd's, because it decides which of several errors a client sees.

use crate::errors::Refusal;
use bytes::Bytes;
use quorate_mvcc::MAX_KEY_BYTES;
use quorate_wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use std::collections::BTreeSet;

/// Checks a key, or the first and the end of a range of keys.
fn keys(key: &Bytes, range_end: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if key.len().max(range_end.len()) > MAX_KEY_BYTES {
        return Err(Refusal::KeyTooLong);
    }
    Ok(())
}

/// Checks a range.
pub fn range(request: &RangeRequest) -> Result<(), Refusal> {
    keys(&request.key, &request.range_end)?;
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// Checks a range that is to be answered in parts.
pub fn range_stream(request: &RangeRequest) -> Result<(), Refusal> {
    range(request)?;
    let plain = request.sort_order == SortOrder::None as i32
        || (request.sort_order == SortOrder::Ascend as i32
            && request.sort_target == SortTarget::Key as i32);
    if !plain {
        return Err(Refusal::StreamSort);
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|bound| *bound != 0) {
        return Err(Refusal::StreamFilter);
    }
    Ok(())
}

/// Checks a put.
pub fn put(request: &PutRequest) -> Result<(), Refusal> {
    keys(&request.key, &Bytes::new())?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
pub fn delete(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    keys(&request.key, &request.range_end)
}

/// Checks a transaction of at most `max_ops` operations. What a level uses is taken off what
/// nested levels may use, so nesting ends.
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    txn_level(request, max_ops)?;
    Footprint::of(&request.success)?;
    Footprint::of(&request.failure)?;
    Ok(())
}

fn txn_level(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    let used = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(rest) = max_ops.checked_sub(used) else {
        return Err(Refusal::TooManyOps);
    };
    request.compare.iter().try_for_each(|compare| keys(&compare.key, &compare.range_end))?;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Op::RequestRange(request)) => range(request)?,
            Some(Op::RequestPut(request)) => put(request)?,
            Some(Op::RequestDeleteRange(request)) => delete(request)?,
            Some(Op::RequestTxn(request)) => txn_level(request, rest)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations puts and deletes. A key may be put once and may not be deleted by the
/// same list; of two alternatives only one happens, so they may overlap.
#[derive(Default)]
struct Footprint {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Footprint {
    fn of(ops: &[RequestOp]) -> Result<Footprint, Refusal> {
        let mut own = Footprint::default();
        for op in ops {
            if let Some(Op::RequestDeleteRange(request)) = &op.request {
                own.deletes.push((request.key.clone(), request.range_end.clone()));
            }
        }
        for op in ops {
            if let Some(Op::RequestTxn(request)) = &op.request {
                own.absorb(request)?;
            }
        }
        for op in ops {
            if let Some(Op::RequestPut(request)) = &op.request {
                own.put(&request.key)?;
            }
        }
        Ok(own)
    }

    fn absorb(&mut self, nested: &TxnRequest) -> Result<(), Refusal> {
        let success = Footprint::of(&nested.success)?;
        let failure = Footprint::of(&nested.failure)?;
        for key in success.puts.union(&failure.puts) {
            self.put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn put(&mut self, key: &Bytes) -> Result<(), Refusal> {
        if self.deletes.iter().any(|(from, end)| covers(from, end, key))
            || !self.puts.insert(key.clone())
        {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

fn covers(from: &Bytes, end: &Bytes, key: &Bytes) -> bool {
    match &end[..] {
        [] => key == from,
        [0] => key >= from,
        _ => key >= from && key < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use build::*;
    use quorate_wire::etcdserverpb::Compare;

    /// Builders that keep the tests short.
    mod build {
        use super::*;

        pub fn put_of(key: &'static str) -> RequestOp {
            let put = PutRequest { key: key.into(), ..Default::default() };
            RequestOp { request: Some(Op::RequestPut(put)) }
        }

        pub fn delete_of(key: &'static str, end: &'static str) -> RequestOp {
            let range_end = end.into();
            let delete = DeleteRangeRequest { key: key.into(), range_end, prev_kv: false };
            RequestOp { request: Some(Op::RequestDeleteRange(delete)) }
        }

        pub fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
            let txn = TxnRequest { compare: vec![], success, failure };
            RequestOp { request: Some(Op::RequestTxn(txn)) }
        }

        pub fn check(success: Vec<RequestOp>) -> Result<(), Refusal> {
            txn(&TxnRequest { compare: vec![], success, failure: vec![] }, 128)
        }
    }

    #[test]
    fn a_key_changes_once() {
        assert_eq!(check(vec![put_of("a"), put_of("b")]), Ok(()));
        assert_eq!(check(vec![put_of("a"), put_of("a")]), Err(Refusal::DuplicateKey));
        assert_eq!(check(vec![put_of("b"), delete_of("a", "c")]), Err(Refusal::DuplicateKey));
        assert_eq!(check(vec![put_of("c"), delete_of("a", "c")]), Ok(()));
        assert_eq!(check(vec![put_of("c"), delete_of("b", "\0")]), Err(Refusal::DuplicateKey));
        assert_eq!(check(vec![put_of("a"), delete_of("a", "")]), Err(Refusal::DuplicateKey));
        assert_eq!(check(vec![delete_of("a", ""), delete_of("a", "b")]), Ok(()));
    }

    #[test]
    fn alternatives_may_overlap_and_levels_may_not() {
        let both = nested(vec![put_of("a")], vec![put_of("a")]);
        assert_eq!(check(vec![both.clone()]), Ok(()));
        assert_eq!(check(vec![both.clone(), put_of("a")]), Err(Refusal::DuplicateKey));
        assert_eq!(check(vec![both.clone(), both.clone()]), Err(Refusal::DuplicateKey));
        assert_eq!(check(vec![both, delete_of("a", "")]), Err(Refusal::DuplicateKey));
        let deletes = nested(vec![delete_of("a", "")], vec![]);
        assert_eq!(check(vec![deletes, put_of("a")]), Err(Refusal::DuplicateKey));
    }

    #[test]
    fn a_level_takes_from_what_its_nested_levels_may_use() {
        let puts = |n: usize| (0..n).map(|_| delete_of("a", "")).collect::<Vec<_>>();
        assert_eq!(check(puts(128)), Ok(()));
        assert_eq!(check(puts(129)), Err(Refusal::TooManyOps));
        assert_eq!(check(vec![nested(puts(127), vec![])]), Ok(()));
        assert_eq!(check(vec![nested(puts(128), vec![])]), Err(Refusal::TooManyOps));
    }

    #[test]
    fn no_key_is_longer_than_the_store_takes() {
        let key = |bytes: usize| Bytes::from(vec![b'k'; bytes]);
        let (longest, longer) = (key(MAX_KEY_BYTES), key(MAX_KEY_BYTES + 1));
        for (first, end, expected) in [
            (&longest, &longest, Ok(())),
            (&longer, &Bytes::new(), Err(Refusal::KeyTooLong)),
            (&longest, &longer, Err(Refusal::KeyTooLong)),
        ] {
            let (key, range_end) = (first.clone(), end.clone());
            let read = RangeRequest { key, range_end, ..Default::default() };
            assert_eq!(range(&read), expected);
            let (key, range_end) = (first.clone(), end.clone());
            assert_eq!(delete(&DeleteRangeRequest { key, range_end, prev_kv: false }), expected);
            let (key, range_end) = (first.clone(), end.clone());
            let compare = vec![Compare { key, range_end, ..Default::default() }];
            assert_eq!(txn(&TxnRequest { compare, ..Default::default() }, 128), expected);
        }
        let write = |key| PutRequest { key, ..Default::default() };
        assert_eq!([put(&write(longest)), put(&write(longer))], [Ok(()), Err(Refusal::KeyTooLong)]);
    }

    #[test]
    fn an_empty_operation_is_told_as_etcd_does() {
        assert_eq!(check(vec![RequestOp { request: None }]), Err(Refusal::KeyNotFound));
    }
}
