//! The wire types of etcd's v3 API: what `proto/*.proto` says, as Rust. No logic, no state.
//!
//! Invariant: everything under `generated/` is written by `cargo xtask proto` and by nobody else;
//! a test there compares. Features `client` and `server` add the stubs and the service traits.

macro_rules! packages {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
        #[rustfmt::skip]
        pub mod $name {
            include!(concat!("generated/", $file));
        }
    )*};
}

packages! {
    /// Users, roles and permissions.
    authpb = "authpb.rs";
    /// The services and their messages.
    etcdserverpb = "etcdserverpb.rs";
    /// Keys and events.
    mvccpb = "mvccpb.rs";
    /// Elections.
    v3electionpb = "v3electionpb.rs";
    /// Locks.
    v3lockpb = "v3lockpb.rs";
    /// The gRPC health checking protocol.
    health = "grpc.health.v1.rs";
}
