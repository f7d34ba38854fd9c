//! The place of the Auth service. Nobody signs in yet: the status says so as etcd does while
//! authentication is disabled, everything that would change it is `Unimplemented`.

use crate::backend::Backend;
use crate::errors::Refusal;
use crate::node::Node;
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::auth_server::Auth;
use tonic::{Request, Response, Status};

/// Says that authentication is disabled.
pub(crate) struct AuthService<B>(pub Node<B>);

/// The revision of etcd's untouched auth store.
const UNTOUCHED: u64 = 1;

macro_rules! later {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl<B: Backend> Auth for AuthService<B> {
            async fn auth_status(
                &self,
                request: Request<pb::AuthStatusRequest>,
            ) -> Result<Response<pb::AuthStatusResponse>, Status> {
                let call = self.0.call(&request)?;
                self.0.admit(&call, false)?;
                let header = Some(self.0.header_now());
                let status =
                    pb::AuthStatusResponse { header, enabled: false, auth_revision: UNTOUCHED };
                Ok(Response::new(status))
            }

            /// A client that was given a password goes on without when it is told this.
            async fn authenticate(
                &self,
                request: Request<pb::AuthenticateRequest>,
            ) -> Result<Response<pb::AuthenticateResponse>, Status> {
                let call = self.0.call(&request)?;
                self.0.admit(&call, false)?;
                Err(Refusal::AuthNotEnabled.into())
            }

            $(async fn $method(
                &self,
                _: Request<pb::$request>,
            ) -> Result<Response<pb::$response>, Status> {
                Err(Status::unimplemented("authentication is not supported yet"))
            })*
        }
    };
}

later! {
    auth_enable(AuthEnableRequest) -> AuthEnableResponse;
    auth_disable(AuthDisableRequest) -> AuthDisableResponse;
    user_add(AuthUserAddRequest) -> AuthUserAddResponse;
    user_get(AuthUserGetRequest) -> AuthUserGetResponse;
    user_list(AuthUserListRequest) -> AuthUserListResponse;
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse;
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse;
    role_list(AuthRoleListRequest) -> AuthRoleListResponse;
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
}
