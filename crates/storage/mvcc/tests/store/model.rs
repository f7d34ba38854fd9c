//! What the store should hold, in the most naive form: the list of all changes ever made.

use bytes::Bytes;
use quorate_mvcc::{Event, KeyRange, KeyValue, RevisionSub, VERSION_OVERHEAD_BYTES};
use std::collections::BTreeMap;

/// One change: a value and a lease, or a deletion.
#[derive(Clone, Debug)]
pub struct Version {
    pub at: RevisionSub,
    pub key: Bytes,
    pub put: Option<(Bytes, i64)>,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub versions: Vec<Version>,
    pub revision: u64,
    pub compacted: u64,
    pub metas: BTreeMap<Bytes, Bytes>,
}

impl Model {
    pub fn new() -> Self {
        Model { versions: Vec::new(), revision: 1, compacted: 0, metas: BTreeMap::new() }
    }

    /// Every key as of `revision`.
    pub fn at(&self, revision: u64) -> BTreeMap<Bytes, KeyValue> {
        let mut keys: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
        for version in self.versions.iter().take_while(|v| v.at.main <= revision) {
            let Some((value, lease)) = &version.put else {
                keys.remove(&version.key);
                continue;
            };
            let kv = keys.entry(version.key.clone()).or_insert_with(|| KeyValue {
                key: version.key.clone(),
                create_revision: version.at.main,
                ..KeyValue::default()
            });
            (kv.mod_revision, kv.version) = (version.at.main, kv.version + 1);
            (kv.value, kv.lease) = (value.clone(), *lease);
        }
        keys
    }

    pub fn put(&mut self, at: RevisionSub, key: Bytes, value: Bytes, lease: i64) {
        self.revision = at.main;
        self.versions.push(Version { at, key, put: Some((value, lease)) });
    }

    /// Deletes keys in ascending order; how many.
    pub fn delete(&mut self, mut at: RevisionSub, range: &KeyRange) -> u32 {
        let keys = self.at(u64::MAX);
        let mut deleted = 0;
        for key in keys.into_keys().filter(|key| range.contains(key)) {
            self.revision = at.main;
            self.versions.push(Version { at, key, put: None });
            at.sub += 1;
            deleted += 1;
        }
        deleted
    }

    /// The changes at revisions `from..=to` of keys in `range`, each with the key before it.
    pub fn changes(&self, from: u64, to: u64, range: &KeyRange) -> Vec<(Event, Option<KeyValue>)> {
        let mut found = Vec::new();
        for (n, version) in self.versions.iter().enumerate() {
            if version.at.main < from || version.at.main > to || !range.contains(&version.key) {
                continue;
            }
            let upto = |n: usize| Model { versions: self.versions[..n].to_vec(), ..Model::new() };
            let event = match upto(n + 1).at(u64::MAX).remove(&version.key) {
                Some(kv) => Event::Put(kv),
                None => Event::Delete { key: version.key.clone(), revision: version.at.main },
            };
            let before = upto(n).at(u64::MAX).remove(&version.key);
            found.push((event, before.filter(|_| version.at.main > self.compacted)));
        }
        found
    }

    /// The changes that compaction up to `below` (excluded) leaves: neither superseded there nor
    /// a deletion from there.
    pub fn left(&self, below: u64) -> Vec<&Version> {
        let mut superseded_at: BTreeMap<&Bytes, u64> = BTreeMap::new();
        let mut left: Vec<&Version> = Vec::new();
        for version in self.versions.iter().rev() {
            let next = superseded_at.insert(&version.key, version.at.main);
            let gone = next.is_some_and(|next| next < below && version.put.is_some())
                || (version.put.is_none() && version.at.main < below);
            if !gone {
                left.push(version);
            }
        }
        left
    }

    /// How many of `versions` have an index entry: deletions, and every 16th version of a key
    /// since it was created. The values here are too small to count for more.
    pub fn indexed(&self, versions: &[&Version]) -> usize {
        let mut steps: BTreeMap<&Bytes, u64> = BTreeMap::new();
        let mut indexed: Vec<RevisionSub> = Vec::new();
        for version in &self.versions {
            let steps = steps.entry(&version.key).or_default();
            *steps = if version.put.is_some() { (*steps + 1) % 16 } else { 0 };
            if *steps == 0 {
                indexed.push(version.at);
            }
        }
        versions.iter().filter(|v| indexed.binary_search(&v.at).is_ok()).count()
    }

    pub fn logical_bytes(&self) -> u64 {
        let bytes = |v: &&Version| {
            let value = v.put.as_ref().map_or(0, |(value, _)| value.len());
            (v.key.len() + value) as u64 + VERSION_OVERHEAD_BYTES
        };
        let below = if self.compacted == 0 { 0 } else { self.compacted + 1 };
        self.left(below).iter().map(bytes).sum()
    }
}
