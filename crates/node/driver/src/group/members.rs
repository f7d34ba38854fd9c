//! Handing leadership over on request.

use super::{Context, Group};
use crate::event::{Answer, RequestError, Token};
use crate::peer::PeerMessage;
use quorate_base::{Instant, NodeId};
use quorate_replicated_log::{Input, Role};

impl Group {
    pub(super) fn request_transfer<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        token: Token,
        deadline: Instant,
        to: NodeId,
    ) {
        let leader = self.log.leader();
        if leader == to {
            cx.outputs.replies.push((token, Ok(Answer::Transferred)));
            return;
        }
        if leader.is_none() {
            cx.reply(token, RequestError::Unavailable);
            return;
        }
        self.transfers.push((token, to, deadline));
        if self.log.role() == Role::Leader {
            self.input(cx, Input::Transfer { to });
        } else {
            cx.send(leader, PeerMessage::ForwardTransfer { group: self.id, to });
        }
    }

    /// The leader changed: whoever wanted this one is answered.
    pub(super) fn settle_transfers<R>(&mut self, cx: &mut Context<'_, R>) {
        let leader = self.log.leader();
        for (token, _, _) in self.transfers.extract_if(.., |(_, to, _)| *to == leader) {
            cx.outputs.replies.push((token, Ok(Answer::Transferred)));
        }
    }

    pub(super) fn sweep_transfers<R>(&mut self, cx: &mut Context<'_, R>) {
        self.settle_transfers(cx);
        for (token, _, _) in self.transfers.extract_if(.., |(_, _, at)| *at <= cx.now) {
            cx.outputs.replies.push((token, Err(RequestError::TransferFailed)));
        }
    }
}
