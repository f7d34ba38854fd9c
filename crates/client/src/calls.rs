//! The calls of etcd's v3 API that answer once, and which of them may be repeated.

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::retry::Safety;
use crate::routes::Participants;
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
use quorate_wire::quorate::groups_client::GroupsClient;
use quorate_wire::quorate::keyspaces_client::KeyspacesClient;
use quorate_wire::quorate::transactions_client::TransactionsClient;
use quorate_wire::quorate::{
    AcknowledgeAlarmsRequest, AcknowledgeAlarmsResponse, CancelTransactionRequest,
    CancelTransactionResponse, CreateKeyspaceRequest, CreateKeyspaceResponse,
    DescribeKeyspaceRequest, DescribeKeyspaceResponse, DropKeyspaceRequest, DropKeyspaceResponse,
    ListAlarmsRequest, ListAlarmsResponse, ListGroupsRequest, ListGroupsResponse,
    ListKeyspacesRequest, ListKeyspacesResponse, ListTransactionsRequest, ListTransactionsResponse,
    NameBranchRequest, NameBranchResponse, RunTransactionRequest, RunTransactionResponse,
    ShowTransactionRequest, ShowTransactionResponse, SwitchGroupRequest, SwitchGroupResponse,
};
use tokio::time::Instant;

/// Answers may be far larger than tonic's 4 MiB: a range of many keys is one message.
const LARGEST_ANSWER_BYTES: usize = i32::MAX as usize;

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($stub:ident.$method:ident, $request:ty) -> $response:ty, $safety:ident;
    )*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// Each kind but [`Error::Endpoint`].
            pub async fn $name(&self, request: $request) -> Result<$response, Error> {
                self.call(Safety::$safety, |link| {
                    let request = request.clone();
                    async move {
                        $stub::new(link)
                            .max_decoding_message_size(LARGEST_ANSWER_BYTES)
                            .$method(request)
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
    range(KvClient.range, RangeRequest) -> RangeResponse, Repeatable;
    /// Writes a key.
    put(KvClient.put, PutRequest) -> PutResponse, Once;
    /// Deletes keys.
    delete_range(KvClient.delete_range, DeleteRangeRequest) -> DeleteRangeResponse, Once;
    /// Compares, then does the one or the other.
    txn(KvClient.txn, TxnRequest) -> TxnResponse, Once;
    /// Forgets history up to a revision.
    compact(KvClient.compact, CompactionRequest) -> CompactionResponse, Once;
    /// Makes a lease.
    lease_grant(LeaseClient.lease_grant, LeaseGrantRequest) -> LeaseGrantResponse, Once;
    /// Ends a lease, and deletes its keys.
    lease_revoke(LeaseClient.lease_revoke, LeaseRevokeRequest) -> LeaseRevokeResponse, Once;
    /// Asks how long a lease still lives.
    lease_time_to_live(LeaseClient.lease_time_to_live, LeaseTimeToLiveRequest)
        -> LeaseTimeToLiveResponse, Repeatable;
    /// Lists the members.
    member_list(ClusterClient.member_list, MemberListRequest) -> MemberListResponse, Repeatable;
    /// Adds a member.
    member_add(ClusterClient.member_add, MemberAddRequest) -> MemberAddResponse, Once;
    /// Removes a member.
    member_remove(ClusterClient.member_remove, MemberRemoveRequest) -> MemberRemoveResponse, Once;
    /// Gives a learner a vote.
    member_promote(ClusterClient.member_promote, MemberPromoteRequest)
        -> MemberPromoteResponse, Once;
    /// Asks whoever's turn it is for its status.
    status(MaintenanceClient.status, StatusRequest) -> StatusResponse, Repeatable;
    /// Lists, raises or clears alarms; doing so twice is doing so once.
    alarm(MaintenanceClient.alarm, AlarmRequest) -> AlarmResponse, Repeatable;
    /// Makes a keyspace.
    keyspace_create(KeyspacesClient.create, CreateKeyspaceRequest) -> CreateKeyspaceResponse, Once;
    /// Lists the keyspaces.
    keyspace_list(KeyspacesClient.list, ListKeyspacesRequest) -> ListKeyspacesResponse, Repeatable;
    /// Describes one.
    keyspace_describe(KeyspacesClient.describe, DescribeKeyspaceRequest)
        -> DescribeKeyspaceResponse, Repeatable;
    /// Lists transactions.
    transaction_list(TransactionsClient.list, ListTransactionsRequest)
        -> ListTransactionsResponse, Repeatable;
    /// Shows one.
    transaction_show(TransactionsClient.show, ShowTransactionRequest)
        -> ShowTransactionResponse, Repeatable;
    /// Rolls one back that is not decided yet.
    transaction_cancel(TransactionsClient.cancel, CancelTransactionRequest)
        -> CancelTransactionResponse, Idempotent;
    /// What an application has to say to prepare a branch itself.
    transaction_name(TransactionsClient.name, NameBranchRequest)
        -> NameBranchResponse, Repeatable;
    /// Lists alarms.
    transaction_alarms(TransactionsClient.alarms, ListAlarmsRequest)
        -> ListAlarmsResponse, Repeatable;
    /// Ends alarms.
    transaction_acknowledge(TransactionsClient.acknowledge, AcknowledgeAlarmsRequest)
        -> AcknowledgeAlarmsResponse, Once;
    /// Drops one.
    keyspace_drop(KeyspacesClient.drop, DropKeyspaceRequest) -> DropKeyspaceResponse, Once;
    /// Lists the groups, as one member knows them.
    group_list(GroupsClient.list, ListGroupsRequest) -> ListGroupsResponse, Repeatable;
    /// Lets a group go on under another protocol; may be asked again by whoever names the epoch.
    group_switch(GroupsClient.switch, SwitchGroupRequest) -> SwitchGroupResponse, Once;
}

impl Client {
    /// Runs a transaction. Under one id it is run once, however often it is asked for. Where a
    /// member has told who drives transactions between these participants, that one is asked first.
    ///
    /// # Errors
    /// Each kind but [`Error::Endpoint`].
    pub async fn transaction_run(
        &self,
        request: RunTransactionRequest,
    ) -> Result<RunTransactionResponse, Error> {
        let participants = Participants::of(&request);
        let first = self.routes.get(&participants);
        let response = self.call_at(first, Safety::Idempotent, |endpoint, channel, until| {
            let (runner, request) = (self.runner(endpoint, channel), &request);
            async move {
                runner.run(request, Some(until.saturating_duration_since(Instant::now()))).await
            }
        });
        let response = response.await?;
        if let Ok(endpoint) = response.driven_at.parse() {
            self.routes.learn(participants, endpoint);
        }
        Ok(response)
    }

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
