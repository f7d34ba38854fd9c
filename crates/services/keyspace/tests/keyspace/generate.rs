//! Random commands over a handful of keys, values and leases, so that they meet each other.

use crate::harness::b;
use bytes::Bytes;
use quorate_base::Rng;
use quorate_keyspace::command::{
    Claim, Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, SortTarget, Txn,
};
use quorate_keyspace::{BranchCommand, BranchId, Command, Part, Prepare};
use quorate_mvcc::KeyRange;

pub struct Generator {
    pub rng: Rng,
    /// About the latest revision.
    pub revision: u64,
    /// Whether names are taken.
    pub claims: bool,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Generator { rng: Rng::new(seed), revision: 1, claims: false }
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
        let mut txn = Txn {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: operations(self),
            failure: operations(self),
        };
        if self.claims && self.one_in(3) {
            self.add_claims(&mut txn);
        }
        txn
    }

    /// A name of a few, which are keys as well.
    fn claim(&mut self) -> Claim {
        Claim { name: self.key(), holder: self.value() }
    }

    fn add_claims(&mut self, txn: &mut Txn) {
        let mut compare = self.compare();
        compare.range = KeyRange::One(self.key());
        // Mostly what is asked by whoever saw that a name is free.
        let seen = self.revision - self.rng.below(3).min(self.revision - 1);
        compare.target = CompareTarget::Claim(seen as i64 + 1);
        if self.one_in(2) {
            compare.operator = CompareOperator::Less;
        }
        txn.compare.push(compare);
        txn.success.insert(0, Operation::Claim(self.claim()));
        txn.failure.push(match self.one_in(2) {
            true => Operation::Release(self.claim()),
            false => Operation::Claim(self.claim()),
        });
    }

    fn operation(&mut self, depth: u64) -> Operation {
        match self.rng.below(8) {
            0 | 1 => Operation::Range(self.range()),
            2 | 3 => Operation::Delete(self.delete()),
            4 if depth < 3 => Operation::Txn(self.txn(depth + 1)),
            _ => Operation::Put(self.put()),
        }
    }

    /// About branches: a few transactions, two attempts, and what meets their locks.
    pub fn branch_command(&mut self) -> Command {
        if self.one_in(8) {
            let several = 1 + self.rng.below(3);
            let part = |one| match one {
                Command::Branch(one) => Part::new(one).ok(),
                _ => None,
            };
            let parts = (0..several).filter_map(|_| part(self.one_command())).collect();
            return Command::Branch(BranchCommand::Together(parts));
        }
        self.one_command()
    }

    fn one_command(&mut self) -> Command {
        let name = *self.rng.pick(&["t1", "t2", "t3", "t4", "t5", "t6"]).unwrap();
        let id = BranchId { transaction: b(name), number: 0 };
        let epoch = 1 + self.rng.below(2);
        Command::Branch(match self.rng.below(10) {
            0..=2 => BranchCommand::Prepare(Prepare {
                priority: 10 * epoch + u64::from(name.as_bytes()[1] & 7),
                id,
                epoch,
                txns: (0..=self.rng.below(3)).map(|_| self.present_txn()).collect(),
                or_else: self.one_in(2),
                one_phase: self.one_in(6),
            }),
            3 | 4 => BranchCommand::Commit { id, epoch },
            5 => BranchCommand::Resolve { id, epoch },
            6..=8 => BranchCommand::Rollback { id, epoch },
            _ if self.one_in(3) => {
                let last = self.revision * 2;
                return Command::Unqueue { entries: vec![self.rng.below(last), last] };
            }
            _ if self.one_in(2) => return Command::Barrier { ranges: vec![self.key_range()] },
            _ => BranchCommand::Forget { id, epoch },
        })
    }

    /// A transaction that reads the present alone.
    fn present_txn(&mut self) -> Txn {
        fn present(operations: &mut [Operation]) {
            for operation in operations {
                match operation {
                    Operation::Range(range) => range.revision = 0,
                    Operation::Txn(inner) => {
                        present(&mut inner.success);
                        present(&mut inner.failure);
                    }
                    Operation::Put(_)
                    | Operation::Delete(_)
                    | Operation::Claim(_)
                    | Operation::Release(_) => {}
                }
            }
        }
        let mut txn = self.txn(2);
        present(&mut txn.success);
        present(&mut txn.failure);
        txn
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
