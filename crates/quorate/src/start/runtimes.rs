//! The asynchronous runtimes of a node, each on one thread.
//!
//! A runtime of one thread takes every task that became ready before it flushes a connection, so
//! that many answers leave with one system call; a runtime that shares its tasks among threads
//! flushes after each. Peers have a runtime of their own: a client's long read must not delay a
//! heartbeat.

use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// A runtime on the calling thread.
pub fn here() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A runtime on a thread of its own, ended when this is dropped.
pub struct Beside {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Starts one. The name is for people who look at the process's threads.
    pub fn start(name: &str) -> std::io::Result<Beside> {
        let runtime = here()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let body = move || {
            runtime.block_on(async {
                // A dropped sender stops it as well.
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Beside { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// For starting tasks on it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}
