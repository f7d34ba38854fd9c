//! What a node may ask of a group on behalf of transactions.

use super::RECORDS;
use super::drive::Drive;
use quorate_base::GroupId;
use quorate_driver::Request;
use quorate_keyspace::branch::BranchInfo;
use quorate_keyspace::codec;
use quorate_keyspace::command::Range;
use quorate_keyspace::{BranchCommand, BranchId, Command, Part, Prepare};
use quorate_transactions::branches::branch_id;
use quorate_transactions::records::write_all;
use quorate_transactions::{Owner, StoreRequest};

/// Something to be asked. Those that a drive waits for are asked again until there is an answer,
/// the others once.
#[derive(Clone, Debug)]
pub(super) enum Errand {
    /// Write the record.
    Store(StoreRequest),
    Prepare {
        branch: u16,
        epoch: u32,
        priority: u64,
        alone: bool,
    },
    Resolve {
        branch: u16,
        epoch: u32,
    },
    Settle {
        branch: u16,
        commit: bool,
        epoch: u32,
    },
    Forget {
        group: GroupId,
        branch: BranchId,
        epoch: u64,
    },
    RollBack {
        group: GroupId,
        branch: BranchId,
        epoch: u64,
    },
    /// Find out what is to be done about a branch that nobody seems to see to.
    Orphan {
        group: GroupId,
        branch: BranchInfo,
        asker: Owner,
    },
    /// Make the record that says that its transaction is void.
    Bury {
        group: GroupId,
        branch: BranchInfo,
        request: StoreRequest,
    },
    /// A transaction of one group, by a client who knows nothing of branches.
    Plain {
        scribe: usize,
        group: GroupId,
        command: Command,
    },
    /// A read of one key, the same, and the command that does it where a branch has locked it.
    Read {
        scribe: usize,
        group: GroupId,
        range: Range,
        command: Command,
    },
}

impl Errand {
    /// Whom to ask, and what; nothing, if it is not wanted any more. `by_itself`: not together with
    /// others, where it could not wait for locks.
    pub fn request(
        &self,
        id: &str,
        drive: Option<&Drive>,
        by_itself: bool,
    ) -> Option<(GroupId, Request)> {
        let wanted = |drive: &Drive| !drive.coordinator.is_over() || drive.forget;
        let drive = drive.filter(|drive| wanted(drive));
        let (group, command) = match self {
            Errand::Orphan { .. } => return Some((RECORDS, Request::Read)),
            Errand::Read { group, .. } => return Some((*group, Request::Read)),
            Errand::Store(request) => drive.map(|_| (RECORDS, write_all(&[(id, request)])))?,
            Errand::Bury { request, .. } => (RECORDS, write_all(&[(id, request)])),
            Errand::Plain { group, command, .. } => (*group, command.clone()),
            Errand::Forget { group, branch: id, epoch } => {
                let command = BranchCommand::Forget { id: id.clone(), epoch: *epoch };
                (*group, Command::Branch(one(command)))
            }
            Errand::RollBack { group, branch: id, epoch } => {
                let command = BranchCommand::Rollback { id: id.clone(), epoch: *epoch };
                (*group, Command::Branch(one(command)))
            }
            _ => {
                let (group, command) = self.of_branch(id, drive?)?;
                let waits = matches!(&command, BranchCommand::Prepare(it) if it.one_phase);
                (group, Command::Branch(if by_itself || waits { command } else { one(command) }))
            }
        };
        codec::encode(&command).ok().map(|body| (group, Request::Propose(body)))
    }

    fn of_branch(&self, id: &str, drive: &Drive) -> Option<(GroupId, BranchCommand)> {
        let record = drive.coordinator.record();
        let place = |branch: u16| {
            let group = record.branches.get(usize::from(branch))?.group;
            Some((group, branch_id(id, record.asker, branch)))
        };
        Some(match *self {
            Errand::Prepare { branch, epoch, priority, alone } => {
                let (group, id) = place(branch)?;
                let txn = drive.work.as_ref()?.get(usize::from(branch))?;
                if drive.coordinator.asks() != Some(epoch) {
                    return None; // The vote is not wanted any more.
                }
                let prepare = Prepare {
                    id,
                    epoch: epoch.into(),
                    priority,
                    txns: [txn.clone()].into(),
                    or_else: false,
                    one_phase: alone,
                };
                (group, BranchCommand::Prepare(prepare))
            }
            Errand::Resolve { branch, epoch } => {
                let (group, id) = place(branch)?;
                (group, BranchCommand::Resolve { id, epoch: epoch.into() })
            }
            Errand::Settle { branch, commit, epoch } => {
                let ((group, id), epoch) = (place(branch)?, epoch.into());
                match commit {
                    true => (group, BranchCommand::Commit { id, epoch }),
                    false => (group, BranchCommand::Rollback { id, epoch }),
                }
            }
            _ => return None,
        })
    }
}

/// As part of what goes together.
fn one(command: BranchCommand) -> BranchCommand {
    match Part::new(command.clone()) {
        Ok(part) => BranchCommand::Together(vec![part]),
        Err(_) => command,
    }
}
