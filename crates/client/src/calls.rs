//! The calls of etcd's v3 API that answer once, and which of them may be repeated.

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::retry::Safety;
use quorate_wire::etcdserverpb::cluster_client::ClusterClient;
use quorate_wire::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcdserverpb::lease_client::LeaseClient;
use quorate_wire::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_wire::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberAddRequest,
    MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
};

/// Answers may be far larger than tonic's 4 MiB: a range of many keys is one message.
const LARGEST_ANSWER_BYTES: usize = i32::MAX as usize;

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($stub:ident, $request:ty) -> $response:ty, $safety:ident;
    )*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// Each kind but [`Error::Endpoint`].
            pub async fn $name(&self, request: $request) -> Result<$response, Error> {
                self.call(Safety::$safety, |channel| {
                    let request = request.clone();
                    async move {
                        $stub::new(channel)
                            .max_decoding_message_size(LARGEST_ANSWER_BYTES)
                            .$name(request)
                            .await
                    }
                })
                .await
            }
        )*}
    };
}

calls! {
    /// Reads keys.
    range(KvClient, RangeRequest) -> RangeResponse, Repeatable;
    /// Writes a key.
    put(KvClient, PutRequest) -> PutResponse, Once;
    /// Deletes keys.
    delete_range(KvClient, DeleteRangeRequest) -> DeleteRangeResponse, Once;
    /// Compares, then does the one or the other.
    txn(KvClient, TxnRequest) -> TxnResponse, Once;
    /// Forgets history up to a revision.
    compact(KvClient, CompactionRequest) -> CompactionResponse, Once;
    /// Makes a lease.
    lease_grant(LeaseClient, LeaseGrantRequest) -> LeaseGrantResponse, Once;
    /// Ends a lease, and deletes its keys.
    lease_revoke(LeaseClient, LeaseRevokeRequest) -> LeaseRevokeResponse, Once;
    /// Asks how long a lease still lives.
    lease_time_to_live(LeaseClient, LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse, Repeatable;
    /// Lists the members.
    member_list(ClusterClient, MemberListRequest) -> MemberListResponse, Repeatable;
    /// Adds a member.
    member_add(ClusterClient, MemberAddRequest) -> MemberAddResponse, Once;
    /// Removes a member.
    member_remove(ClusterClient, MemberRemoveRequest) -> MemberRemoveResponse, Once;
    /// Gives a learner a vote.
    member_promote(ClusterClient, MemberPromoteRequest) -> MemberPromoteResponse, Once;
    /// Asks whoever's turn it is for its status.
    status(MaintenanceClient, StatusRequest) -> StatusResponse, Repeatable;
    /// Lists, raises or clears alarms; doing so twice is doing so once.
    alarm(MaintenanceClient, AlarmRequest) -> AlarmResponse, Repeatable;
}

impl Client {
    /// Asks the cluster for its members, and from now on uses their addresses.
    ///
    /// # Errors
    /// Each kind but [`Error::Endpoint`].
    pub async fn discover(&self) -> Result<Vec<Endpoint>, Error> {
        let listed = self.member_list(MemberListRequest { linearizable: false }).await?;
        let urls = listed.members.iter().flat_map(|member| &member.client_ur_ls);
        // An address this client cannot use (TLS, say) is no reason to forget the others.
        let mut endpoints: Vec<Endpoint> = urls.filter_map(|url| url.parse().ok()).collect();
        endpoints.sort();
        endpoints.dedup();
        self.use_endpoints(endpoints);
        Ok(self.endpoints())
    }
}
