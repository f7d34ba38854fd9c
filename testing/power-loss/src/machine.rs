//! A mounted disk and its power switch.
//!
//! Power fails in three steps: [`PoweredDisk::freeze`] stops the disk where it is; then whoever
//! uses it is sent the signal that kills; [`PoweredDisk::let_go`] answers all that waits with
//! errors, which nobody lives to see, for a process that waits for its disk cannot end. So no
//! program meets an error that a power failure would not show it, and nothing is written later.

use crate::disk::{Disk, Faults, Loss, Settings};
use crate::mount::{Mount, Power, Shared};
use fuser::{BackgroundSession, Config, MountOption};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a file system may stay busy after its users are gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that are served at the same time.
const THREADS: usize = 4;

/// A disk in memory, mounted as a file system.
#[derive(Debug)]
pub struct PoweredDisk {
    shared: Arc<Shared>,
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
}

impl PoweredDisk {
    /// Mounts a new, empty disk at a directory that exists.
    ///
    /// # Errors
    /// If it cannot be mounted: it takes `/dev/fuse`, and root or `fusermount3`.
    pub fn mount(mountpoint: &Path, settings: Settings) -> io::Result<PoweredDisk> {
        let shared = Shared::new(Disk::new(settings));
        let mut disk = PoweredDisk { shared, mountpoint: mountpoint.to_owned(), session: None };
        disk.power_on()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The moment at which power fails: from now on nothing is answered.
    pub fn freeze(&self) {
        self.shared.set(Power::Frozen);
    }

    /// Lets go of the processes that wait for the disk, which must have been sent `SIGKILL`.
    pub fn let_go(&self) {
        self.shared.set(Power::Off);
    }

    /// Forgets what was not synced, once no process uses the disk any more.
    ///
    /// # Errors
    /// If something still uses it after ten seconds.
    pub fn power_off(&mut self) -> io::Result<()> {
        self.let_go();
        self.unmount()?;
        self.shared.with(Disk::power_off);
        Ok(())
    }

    /// Mounts what is left.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn power_on(&mut self) -> io::Result<()> {
        assert!(self.session.is_none(), "it is on");
        self.shared.set(Power::On);
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("power-loss".to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
        ];
        config.n_threads = Some(THREADS);
        let mount = Mount(self.shared.clone());
        self.session = Some(fuser::spawn_mount(mount, &self.mountpoint, &config)?);
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        // The end of a process closes its files a moment after it was waited for.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match rustix::mount::unmount(&self.mountpoint, rustix::mount::UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    self.session = Some(session);
                    return Err(error.into());
                }
                Ok(()) => {
                    // How a thread that was reading a request just then hears of the end.
                    let aborted = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionAborted;
                    return session.join().or_else(|e| if aborted(&e) { Ok(()) } else { Err(e) });
                }
            }
        }
    }

    /// Orders errors.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.with(|disk| change(&mut disk.faults));
    }

    /// Sets how much the disk takes, in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.with(|disk| disk.set_capacity(bytes));
    }

    /// What its power failures did so far.
    pub fn loss(&self) -> Loss {
        self.shared.with(|disk| disk.loss)
    }
}

impl Drop for PoweredDisk {
    fn drop(&mut self) {
        self.let_go();
        if self.session.is_some() && self.unmount().is_err() {
            // Something still uses it. Detached, it is gone with its last user.
            let detach = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(&self.mountpoint, detach);
        }
    }
}
