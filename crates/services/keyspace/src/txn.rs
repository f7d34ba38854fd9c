//! Transactions, as etcd does them: all compares of the branches taken are evaluated, and all
//! their operations checked, on the state before; only then the operations are done, in order,
//! each seeing what the ones before it did, all at one revision.

use crate::apply::{Execution, Stop};
use crate::branch::{Done, No, Prepare};
use crate::claims;
use crate::command::{Compare, CompareOperator, CompareTarget, Operation, Put, Txn};
use crate::range;
use crate::reply::{KeyspaceError, OperationOutcome, PutOutcome, TxnOutcome};
use bytes::Bytes;
use quorate_mvcc::{Engine, KeyRange, KeyValue, MAX_KEY_BYTES, RangeRequest, Revision};
use std::cmp::Ordering;

/// Which branch each transaction takes: first the outer one, then those within its branch.
type Path = std::vec::IntoIter<bool>;

impl<E: Engine> Execution<'_, '_, E> {
    /// Does a transaction.
    pub(crate) fn transact(&mut self, txn: &Txn) -> Result<TxnOutcome, Stop> {
        let mut path = Vec::new();
        self.decide(txn, &mut path)?;
        self.check(txn, &mut path.clone().into_iter())?;
        self.carry_out(txn, &mut path.into_iter())
    }

    /// Does a branch: its transactions in order, each at a revision of its own. One whose compares
    /// do not hold refuses all of it, unless it has something else to do.
    pub(crate) fn transact_branch(
        &mut self,
        prepare: &Prepare,
    ) -> Result<Result<Vec<Done>, No>, Stop> {
        let mut all = Vec::with_capacity(prepare.txns.len());
        let before = self.txn.revision();
        if prepare.txns.iter().any(Txn::has_claims) {
            // Nothing of a name is locked.
            return Err(KeyspaceError::Unsupported.into());
        }
        for txn in prepare.txns.iter() {
            self.txn.next_revision();
            if !all.is_empty() && self.compares_own(txn, before)? {
                return Ok(Err(No::OwnRevision));
            }
            let mut path = Vec::new();
            self.decide(txn, &mut path)?;
            if !prepare.or_else && path.first() == Some(&false) {
                return Ok(Err(No::CompareFailed));
            }
            self.check(txn, &mut path.clone().into_iter())?;
            let outcome = self.carry_out(txn, &mut path.into_iter())?;
            all.push(Done { revision: self.txn.revision(), outcome });
        }
        Ok(Ok(all))
    }

    /// Whether it compares a revision later than `before`, in whatever list: one of the branch's
    /// own, which is a guess until it is committed.
    fn compares_own(&self, txn: &Txn, before: Revision) -> Result<bool, Stop> {
        for compare in &txn.compare {
            let revision: fn(&KeyValue) -> Revision = match compare.target {
                CompareTarget::Mod(_) => |kv| kv.mod_revision,
                CompareTarget::Create(_) => |kv| kv.create_revision,
                CompareTarget::Version(_)
                | CompareTarget::Value(_)
                | CompareTarget::Lease(_)
                | CompareTarget::Claim(_) => continue,
            };
            let found = self.txn.range(&RangeRequest {
                keys_only: true,
                count: false,
                ..RangeRequest::of(compare.range.clone())
            })?;
            if found.kvs.iter().any(|kv| revision(kv) > before) {
                return Ok(true);
            }
        }
        for operation in txn.success.iter().chain(&txn.failure) {
            if let Operation::Txn(inner) = operation
                && self.compares_own(inner, before)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn decide(&self, txn: &Txn, path: &mut Vec<bool>) -> Result<(), Stop> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && self.compare(compare)?;
        }
        path.push(succeeded);
        for operation in branch(txn, succeeded) {
            if let Operation::Txn(inner) = operation {
                self.decide(inner, path)?;
            }
        }
        Ok(())
    }

    fn compare(&self, compare: &Compare) -> Result<bool, Stop> {
        if let CompareTarget::Claim(given) = compare.target {
            let KeyRange::One(name) = &compare.range else {
                return Err(KeyspaceError::Unsupported.into());
            };
            return self.compare_claim(name, compare.operator, given);
        }
        // One key is the usual case, and its value is seldom wanted.
        if let (KeyRange::One(key), false) =
            (&compare.range, matches!(compare.target, CompareTarget::Value(_)))
        {
            let meta = self.txn.get(key)?.unwrap_or_default();
            return Ok(one_holds(compare, &meta.with(key.clone(), Default::default())));
        }
        let found = self.txn.range(&RangeRequest {
            keys_only: !matches!(compare.target, CompareTarget::Value(_)),
            count: false,
            ..RangeRequest::of(compare.range.clone())
        })?;
        if found.kvs.is_empty() {
            // A missing key has zeros, but no value that could compare.
            let value = matches!(compare.target, CompareTarget::Value(_));
            return Ok(!value && one_holds(compare, &KeyValue::default()));
        }
        Ok(found.kvs.iter().all(|kv| one_holds(compare, kv)))
    }

    fn compare_claim(
        &self,
        name: &Bytes,
        operator: CompareOperator,
        given: i64,
    ) -> Result<bool, Stop> {
        if operator == CompareOperator::Less
            && given > 0
            && self.state.claims.none_since(name, given.unsigned_abs() - 1)
        {
            return Ok(true);
        }
        let taken = claims::find(self.txn, name)?.map_or(0, |(revision, _)| revision);
        Ok(range::holds(operator, number(taken, given)))
    }

    fn check(&self, txn: &Txn, path: &mut Path) -> Result<(), Stop> {
        let succeeded = path.next().unwrap_or_default();
        for operation in branch(txn, succeeded) {
            match operation {
                Operation::Range(range) => self.check_revision(range.revision)?,
                Operation::Put(put) => self.check_put(put)?,
                Operation::Delete(_) | Operation::Release(_) => {}
                Operation::Txn(inner) => self.check(inner, path)?,
                Operation::Claim(claim) if claim.name.len() > MAX_KEY_BYTES => {
                    return Err(KeyspaceError::Unsupported.into());
                }
                Operation::Claim(_) => {}
            }
        }
        Ok(())
    }

    fn check_revision(&self, revision: Revision) -> Result<(), KeyspaceError> {
        if revision > self.txn.revision() {
            return Err(KeyspaceError::FutureRevision);
        }
        if revision != 0 && revision < self.txn.compacted_revision() {
            return Err(KeyspaceError::Compacted);
        }
        Ok(())
    }

    fn check_put(&self, put: &Put) -> Result<(), Stop> {
        self.check_lease(put.lease)?;
        if (put.ignore_value || put.ignore_lease) && self.txn.get(&put.key)?.is_none() {
            return Err(KeyspaceError::KeyNotFound.into());
        }
        Ok(())
    }

    fn carry_out(&mut self, txn: &Txn, path: &mut Path) -> Result<TxnOutcome, Stop> {
        let succeeded = path.next().unwrap_or_default();
        let operations = branch(txn, succeeded);
        let mut responses = Vec::with_capacity(operations.len());
        for operation in operations {
            responses.push(match operation {
                Operation::Range(wanted) => {
                    OperationOutcome::Range(range::read(&*self.txn, wanted)?)
                }
                Operation::Put(put) => OperationOutcome::Put(self.put(put.clone())?),
                Operation::Delete(delete) => OperationOutcome::Delete(self.delete(delete.clone())?),
                Operation::Txn(inner) => OperationOutcome::Txn(self.carry_out(inner, path)?),
                Operation::Claim(claim) => {
                    claims::take(self.txn, &mut self.state.claims, claim);
                    continue;
                }
                Operation::Release(claim) => {
                    claims::release(self.txn, claim)?;
                    continue;
                }
            });
        }
        Ok(TxnOutcome { succeeded, responses })
    }
}

/// What a branch would do, if that can be told without a look at the keys: it only writes some,
/// whatever they are, and has nothing else to do.
pub(crate) fn foreseen(prepare: &Prepare, before: Revision) -> Option<Vec<Done>> {
    let writes = |operation: &Operation| match operation {
        Operation::Put(put) => {
            let plain = !(put.prev_kv || put.ignore_value || put.ignore_lease) && put.lease == 0;
            plain && put.key.len() <= MAX_KEY_BYTES && u32::try_from(put.value.len()).is_ok()
        }
        _ => false,
    };
    let one = |(n, txn): (Revision, &Txn)| {
        // A list that is not done may still have what makes it refused.
        let foreseen = txn.compare.is_empty()
            && txn.failure.is_empty()
            && !txn.success.is_empty()
            && txn.success.iter().all(writes);
        let put = OperationOutcome::Put(PutOutcome::default());
        foreseen.then(|| Done {
            revision: before + n,
            outcome: TxnOutcome { succeeded: true, responses: vec![put; txn.success.len()] },
        })
    };
    (1..).zip(prepare.txns.iter()).map(one).collect()
}

fn branch(txn: &Txn, succeeded: bool) -> &[Operation] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// Counters are stored unsigned and given signed; nothing stored exceeds the signed range.
fn number(stored: u64, given: i64) -> Ordering {
    i64::try_from(stored).unwrap_or(i64::MAX).cmp(&given)
}

fn one_holds(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(v) => number(kv.version, *v),
        CompareTarget::Create(v) => number(kv.create_revision, *v),
        CompareTarget::Mod(v) => number(kv.mod_revision, *v),
        CompareTarget::Value(v) => kv.value.cmp(v),
        CompareTarget::Lease(v) => kv.lease.cmp(v),
        // It is about no key.
        CompareTarget::Claim(_) => return false,
    };
    range::holds(compare.operator, order)
}
