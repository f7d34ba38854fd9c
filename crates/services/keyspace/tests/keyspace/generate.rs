//! Random commands over a handful of keys, values and leases, so that they meet each other.

use crate::harness::b;
use bytes::Bytes;
use quorate_base::Rng;
use quorate_keyspace::Command;
use quorate_keyspace::command::{
    Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, SortTarget, Txn,
};
use quorate_mvcc::KeyRange;

pub struct Generator {
    pub rng: Rng,
    /// About the latest revision.
    pub revision: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Generator { rng: Rng::new(seed), revision: 1 }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    fn key(&mut self) -> Bytes {
        b(self.rng.pick(&["a", "aa", "b", "c", "d"]).unwrap())
    }

    fn value(&mut self) -> Bytes {
        b(self.rng.pick(&["", "1", "2", "three"]).unwrap())
    }

    fn some_revision(&mut self) -> u64 {
        if self.one_in(2) { 0 } else { self.rng.below(self.revision + 3) }
    }

    pub fn key_range(&mut self) -> KeyRange {
        match self.rng.below(4) {
            0 | 1 => KeyRange::One(self.key()),
            2 => KeyRange::Between(self.key(), self.key()),
            _ => KeyRange::From(self.key()),
        }
    }

    fn put(&mut self) -> Put {
        Put {
            key: self.key(),
            value: self.value(),
            lease: if self.one_in(3) { 1 + self.rng.below(3) as i64 } else { 0 },
            prev_kv: self.one_in(2),
            ignore_value: self.one_in(8),
            ignore_lease: self.one_in(8),
        }
    }

    fn delete(&mut self) -> Delete {
        Delete { range: self.key_range(), prev_kv: self.one_in(2) }
    }

    pub fn range(&mut self) -> Range {
        let targets = [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ];
        let sort = self.rng.pick(&targets).copied().map(|target| (target, self.one_in(2)));
        Range {
            limit: if self.one_in(2) { self.rng.below(4) } else { 0 },
            revision: self.some_revision(),
            sort: sort.filter(|_| self.one_in(2)),
            keys_only: self.one_in(4),
            count_only: self.one_in(8),
            mod_revision: if self.one_in(4) {
                (self.some_revision(), self.some_revision())
            } else {
                (0, 0)
            },
            create_revision: if self.one_in(4) { (self.some_revision(), 0) } else { (0, 0) },
            ..Range::of(self.key_range())
        }
    }

    fn compare(&mut self) -> Compare {
        let given = self.rng.below(self.revision + 2) as i64;
        Compare {
            range: self.key_range(),
            operator: match self.rng.below(4) {
                0 => CompareOperator::Equal,
                1 => CompareOperator::Greater,
                2 => CompareOperator::Less,
                _ => CompareOperator::NotEqual,
            },
            target: match self.rng.below(5) {
                0 => CompareTarget::Version(given % 4),
                1 => CompareTarget::Create(given),
                2 => CompareTarget::Mod(given),
                3 => CompareTarget::Value(self.value()),
                _ => CompareTarget::Lease(given % 4),
            },
        }
    }

    fn txn(&mut self, depth: u64) -> Txn {
        let compares = self.rng.below(3);
        let operations =
            |this: &mut Self| (0..this.rng.below(4)).map(|_| this.operation(depth)).collect();
        Txn {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: operations(self),
            failure: operations(self),
        }
    }

    fn operation(&mut self, depth: u64) -> Operation {
        match self.rng.below(8) {
            0 | 1 => Operation::Range(self.range()),
            2 | 3 => Operation::Delete(self.delete()),
            4 if depth < 3 => Operation::Txn(self.txn(depth + 1)),
            _ => Operation::Put(self.put()),
        }
    }

    pub fn command(&mut self) -> Command {
        match self.rng.below(20) {
            0..=6 => Command::Put(self.put()),
            7 | 8 => Command::Delete(self.delete()),
            9..=14 => Command::Txn(self.txn(1)),
            15 => Command::Compact { revision: self.some_revision() },
            16 | 17 => Command::LeaseGrant { id: 1 + self.rng.below(3) as i64, ttl_seconds: 60 },
            18 => Command::LeaseRevoke { id: 1 + self.rng.below(3) as i64 },
            _ => Command::Put(self.put()),
        }
    }
}
