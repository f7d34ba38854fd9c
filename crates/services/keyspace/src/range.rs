//! Range reads, with etcd's rules for filters, order, limit and count.
//!
//! - `count` is of all keys in the range at that revision: neither the limit nor the filters
//!   reduce it.
//! - Filters come first, then the order, then the limit; `more` tells that the limit cut.
//! - A target other than the key sorts even where no order was named, ascending.

use crate::command::{Range, SortTarget};
use crate::reply::RangeOutcome;
use quorate_mvcc::{Engine, Error, KeyValue, RangeRequest, RangeResult, ReadState, WriteTxn};
use std::cmp::Ordering;

/// Something that ranges can be read from.
pub(crate) trait Source {
    fn read(&self, request: &RangeRequest) -> Result<RangeResult, Error>;
}

impl<E: Engine> Source for ReadState<E> {
    fn read(&self, request: &RangeRequest) -> Result<RangeResult, Error> {
        self.range(request)
    }
}

impl<E: Engine> Source for WriteTxn<'_, E> {
    fn read(&self, request: &RangeRequest) -> Result<RangeResult, Error> {
        self.range(request)
    }
}

/// Reads a range.
pub(crate) fn read(source: &impl Source, range: &Range) -> Result<RangeOutcome, Error> {
    let sorted = range.sort.is_some_and(|sort| sort != (SortTarget::Key, false));
    let filtered = range.mod_revision != (0, 0) || range.create_revision != (0, 0);
    let by_value = matches!(range.sort, Some((SortTarget::Value, _)));
    let mut request = RangeRequest {
        range: range.range.clone(),
        revision: range.revision,
        // One beyond the limit is never read: the store knows itself whether there is more.
        limit: if sorted || filtered { 0 } else { range.limit },
        keys_only: range.keys_only && !by_value,
        count: true,
    };
    if range.count_only {
        // The store still walks the keys, to count them, but fetches no more than one.
        (request.limit, request.keys_only) = (1, true);
        let found = source.read(&request)?;
        let (revision, count) = (found.revision, found.count);
        return Ok(RangeOutcome { kvs: Vec::new(), more: false, count, revision });
    }
    let mut found = source.read(&request)?;
    if filtered {
        found.kvs.retain(|kv| passes(range, kv));
    }
    if let Some((target, descending)) = range.sort {
        sort(&mut found.kvs, target, descending);
    }
    if (sorted || filtered) && range.limit > 0 && found.kvs.len() as u64 > range.limit {
        found.kvs.truncate(range.limit as usize);
        found.more = true;
    }
    if range.keys_only && by_value {
        for kv in &mut found.kvs {
            kv.value.clear();
        }
    }
    let RangeResult { kvs, more, count, revision } = found;
    Ok(RangeOutcome { kvs, more, count, revision })
}

fn passes(range: &Range, kv: &KeyValue) -> bool {
    let within = |(min, max): (u64, u64), revision: u64| {
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    within(range.mod_revision, kv.mod_revision) && within(range.create_revision, kv.create_revision)
}

fn sort(kvs: &mut [KeyValue], target: SortTarget, descending: bool) {
    let by = |a: &KeyValue, b: &KeyValue| match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match (target, descending) {
        // They come in this order.
        (SortTarget::Key, false) => {}
        (SortTarget::Key, true) => kvs.reverse(),
        (_, false) => kvs.sort_by(by),
        (_, true) => kvs.sort_by(|a, b| by(a, b).reverse()),
    }
}

/// How what is stored compares with what is given.
pub(crate) fn holds(operator: crate::command::CompareOperator, order: Ordering) -> bool {
    use crate::command::CompareOperator::{Equal, Greater, Less, NotEqual};
    match operator {
        Equal => order.is_eq(),
        NotEqual => order.is_ne(),
        Greater => order.is_gt(),
        Less => order.is_lt(),
    }
}
