//! Which keyspace a request is for: the metadata entry `quorate-keyspace` names it.
//!
//! Invariant: a keyspace costs something here only once a client has named it, and no more after
//! it has gone; names of keyspaces that are not there cost nothing.

use crate::backend::{Backend, NoKeyspace};
use crate::serve::{Site, follow};
use parking_lot::RwLock;
use std::collections::HashMap;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tonic::Status;

/// The metadata entry that names a keyspace.
pub(crate) const KEYSPACE_HEADER: &str = "quorate-keyspace";

/// The name of the default keyspace.
const DEFAULT: &str = "default";

/// Longer names are not even looked up.
const MAX_NAME_BYTES: usize = 1_024;

/// What serves the keyspaces beside the default one.
pub(crate) struct Keyspaces<B> {
    runtime: Handle,
    open: RwLock<HashMap<String, Open<B>>>,
}

struct Open<B> {
    site: Site<B>,
    /// Dropping it ends them.
    _tasks: JoinSet<()>,
}

impl<B: Backend> Keyspaces<B> {
    /// None yet; what goes on for them will run on `runtime`.
    pub fn new(runtime: Handle) -> Keyspaces<B> {
        Keyspaces { runtime, open: RwLock::default() }
    }

    /// What serves the keyspace of this name, `default`'s site if it is that one.
    pub fn site(&self, default: &Site<B>, name: Option<&[u8]>) -> Result<Site<B>, Status> {
        let name = std::str::from_utf8(name.unwrap_or_default())
            .ok()
            .filter(|name| name.len() <= MAX_NAME_BYTES)
            .ok_or_else(|| Status::invalid_argument("quorate: a keyspace's name is short text"))?;
        if name == DEFAULT || name.is_empty() {
            return Ok(default.clone());
        }
        if let Some(open) = self.open.read().get(name)
            && !open.site.node.backend.is_closed()
        {
            return Ok(open.site.clone());
        }
        let mut all = self.open.write();
        all.retain(|_, open| !open.site.node.backend.is_closed());
        if let Some(open) = all.get(name) {
            return Ok(open.site.clone());
        }
        let backend = default.node.backend.keyspace(name).map_err(|why| refusal(name, &why))?;
        let site = default.beside(backend);
        let mut tasks = JoinSet::new();
        follow(&site.node, |task| {
            tasks.spawn_on(task, &self.runtime);
        });
        all.insert(name.to_owned(), Open { site: site.clone(), _tasks: tasks });
        Ok(site)
    }
}

fn refusal(name: &str, why: &NoKeyspace) -> Status {
    match why {
        NoKeyspace::Unknown => Status::not_found(format!(
            "quorate: there is no keyspace {name:?}: make it with `quorate keyspace create`"
        )),
        NoKeyspace::Reserved => Status::permission_denied(format!(
            "quorate: the keyspace {name:?} is the cluster's own: use quorate.v1.Keyspaces, or \
             quorate.v1.Transactions"
        )),
        // Another member may serve it: clients try there.
        NoKeyspace::Elsewhere(text) => Status::unavailable(format!("quorate: {name:?}: {text}")),
        NoKeyspace::NotYet => Status::unavailable(format!(
            "quorate: the keyspace {name:?} is not open on this member yet"
        )),
    }
}
