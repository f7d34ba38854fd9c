//! The store: versioned keys over an engine, written by one thread.

use crate::canary::{Bug, Canary};
use crate::engine::{Change, Engine, Source, Table};
use crate::error::Error;
use crate::format::{HEADER_NAME, Header, read_latest, service_name};
use crate::key_value::Revision;
use crate::reader::{At, Board, ReadState, Reader, Shown};
use crate::recent::Recent;
use crate::scrub;
use crate::txn::WriteTxn;
use bytes::Bytes;
use quorate_base::Index;
use std::sync::Arc;

/// Versioned keys over an engine. Owned by the thread that applies; others read through a
/// [`Reader`].
pub struct Store<E: Engine> {
    engine: E,
    board: Arc<Board<E>>,
    header: Header,
    canary: Canary,
    recent: Recent,
}

impl<E: Engine> Store<E> {
    /// Opens what `engine` holds; an empty engine is an empty store, at revision 1.
    pub fn open(engine: E) -> Result<Self, Error> {
        Store::open_with(engine, Canary::NONE)
    }

    /// Opens what `engine` holds, with a bug planted.
    pub fn open_with(engine: E, canary: Canary) -> Result<Self, Error> {
        let header = match engine.view().get(Table::Meta, HEADER_NAME)? {
            Some(bytes) => Header::decode(bytes)?,
            None => {
                let header = Header::empty();
                let name = Bytes::from_static(HEADER_NAME);
                engine.write(vec![(Table::Meta, name, Some(header.encode()))])?;
                header
            }
        };
        let shown = Shown { header: header.clone(), canary, at: At::Engine };
        let board = Arc::new(Board::new(engine.clone(), shown));
        Ok(Store { engine, board, header, canary, recent: Recent::default() })
    }

    /// The engine below.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn canary(&self) -> Canary {
        self.canary
    }

    /// The state right now, for the writer: nobody else changes it.
    pub(crate) fn view(&self) -> E::View {
        self.engine.view()
    }

    /// The log's entries up to this index were applied.
    pub fn applied(&self) -> Index {
        self.header.applied
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        self.header.revision
    }

    /// The oldest revision that can be read; zero before the first compaction.
    pub fn compacted_revision(&self) -> Revision {
        self.header.compacted
    }

    /// The bytes of the versions that can be read, the same on every replica.
    pub fn logical_bytes(&self) -> u64 {
        self.header.logical_bytes()
    }

    /// About how many bytes the engine occupies on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.engine.disk_bytes()
    }

    /// For reading from other threads.
    pub fn reader(&self) -> Reader<E> {
        Reader::new(self.board.clone())
    }

    /// The state right now.
    pub fn state(&self) -> ReadState<E> {
        self.reader().state()
    }

    /// A named record of the service.
    pub fn meta(&self, name: &[u8]) -> Result<Option<Bytes>, Error> {
        self.state().meta(name)
    }

    /// The service's named records whose names begin with `prefix`, in order of name.
    pub fn metas(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let from = service_name(prefix);
        let view = self.view();
        let mut found = Vec::new();
        for pair in view.scan(Table::Meta, &from, None) {
            let (name, value) = pair?;
            if !name.starts_with(&from) {
                break;
            }
            found.push((name.slice(1..), value));
        }
        Ok(found)
    }

    /// Starts a batch of commands.
    pub fn begin(&mut self) -> WriteTxn<'_, E> {
        WriteTxn::new(self)
    }

    /// Writes a batch over the state of which `before` is a view, and shows the state after it.
    pub(crate) fn write(
        &mut self,
        mut batch: Vec<Change>,
        before: E::View,
        header: Header,
    ) -> Result<(), Error> {
        self.hold(before);
        if self.canary.sings(Bug::AppliedIndexApart) {
            let apart = batch.extract_if(.., |(t, k, _)| *t == Table::Meta && *k == HEADER_NAME);
            self.engine.write(apart.collect())?;
        }
        let written = self.remember(&batch).and_then(|()| self.engine.write(batch));
        if written.is_err() {
            self.recent.clear();
        }
        written?;
        self.show(header);
        Ok(())
    }

    /// Remembers what keys become.
    fn remember(&mut self, batch: &[Change]) -> Result<(), Error> {
        for (_, key, value) in batch.iter().filter(|(table, _, _)| *table == Table::Current) {
            self.recent.set(key, value.clone().map(read_latest).transpose()?);
        }
        Ok(())
    }

    /// What was changed lately.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Another state takes the place of the present one.
    pub(crate) fn replace(&mut self, staging: E::Staging, header: Header) -> Result<(), Error> {
        self.hold(self.view());
        let installed = self.engine.install(staging);
        if installed.is_ok() {
            self.recent.clear();
        }
        // If it could not begin, the present one stays.
        self.show(if installed.is_ok() { header } else { self.header.clone() });
        installed
    }

    /// Shows readers this view of the present state, which is about to change.
    fn hold(&self, view: E::View) {
        let (header, canary) = (self.header.clone(), self.canary);
        self.board.show(Shown { header, canary, at: At::View(view) });
    }

    /// Shows readers the engine's present state, whose header this is.
    fn show(&mut self, header: Header) {
        self.header = header.clone();
        self.board.show(Shown { header, canary: self.canary, at: At::Engine });
    }

    /// Removes a piece of what compaction freed: a walk over at most `max_changes` changes of
    /// history. Whether there is more to do. Changes nothing that can be read; to be called
    /// between batches, as often as there is time. After a restart it goes on where it was.
    pub fn scrub(&mut self, max_changes: usize) -> Result<bool, Error> {
        let view = self.view();
        if self.canary.sings(Bug::CompactionDropsLatest) {
            self.recent.clear();
        }
        match scrub::piece(&view, self.header.compacted, max_changes, self.canary)? {
            Some(piece) => {
                self.hold(view);
                self.engine.write(piece.batch)?;
                self.show(self.header.clone());
                Ok(piece.more)
            }
            None => Ok(false),
        }
    }

    /// A job that makes everything committed so far durable, to be run on any thread, and
    /// returns the applied index up to which it did.
    pub fn persister(&self) -> impl FnOnce() -> Result<Index, Error> + Send + 'static {
        let (engine, applied) = (self.engine.clone(), self.header.applied);
        move || engine.persist().map(|()| applied)
    }
}

impl<E: Engine> Drop for Store<E> {
    fn drop(&mut self) {
        let (header, canary) = (self.header.clone(), self.canary);
        self.board.show(Shown { header, canary, at: At::Nowhere });
    }
}
