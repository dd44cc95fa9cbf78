//! The calls that are counted, with the labels that grpc-ecosystem dashboards expect.

macro_rules! rpcs {
    ($($variant:ident = $service:literal, $method:literal, $kind:literal;)*) => {
        /// One call of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rpc { $($variant),* }

        impl Rpc {
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Service, method and kind.
            pub(super) const fn labels(self) -> (&'static str, &'static str, &'static str) {
                match self { $(Self::$variant => ($service, $method, $kind)),* }
            }
        }

        pub(super) const RPC_COUNT: usize = [$(Rpc::$variant),*].len();
    };
}

rpcs! {
    Range = "etcdserverpb.KV", "Range", "unary";
    RangeStream = "etcdserverpb.KV", "RangeStream", "server_stream";
    Put = "etcdserverpb.KV", "Put", "unary";
    DeleteRange = "etcdserverpb.KV", "DeleteRange", "unary";
    Txn = "etcdserverpb.KV", "Txn", "unary";
    Compact = "etcdserverpb.KV", "Compact", "unary";
    Watch = "etcdserverpb.Watch", "Watch", "bidi_stream";
    LeaseGrant = "etcdserverpb.Lease", "LeaseGrant", "unary";
    LeaseRevoke = "etcdserverpb.Lease", "LeaseRevoke", "unary";
    LeaseKeepAlive = "etcdserverpb.Lease", "LeaseKeepAlive", "bidi_stream";
    LeaseTimeToLive = "etcdserverpb.Lease", "LeaseTimeToLive", "unary";
    LeaseLeases = "etcdserverpb.Lease", "LeaseLeases", "unary";
    MemberAdd = "etcdserverpb.Cluster", "MemberAdd", "unary";
    MemberRemove = "etcdserverpb.Cluster", "MemberRemove", "unary";
    MemberUpdate = "etcdserverpb.Cluster", "MemberUpdate", "unary";
    MemberList = "etcdserverpb.Cluster", "MemberList", "unary";
    MemberPromote = "etcdserverpb.Cluster", "MemberPromote", "unary";
    Alarm = "etcdserverpb.Maintenance", "Alarm", "unary";
    Status = "etcdserverpb.Maintenance", "Status", "unary";
    Defragment = "etcdserverpb.Maintenance", "Defragment", "unary";
    Hash = "etcdserverpb.Maintenance", "Hash", "unary";
    HashKv = "etcdserverpb.Maintenance", "HashKV", "unary";
    Snapshot = "etcdserverpb.Maintenance", "Snapshot", "server_stream";
    MoveLeader = "etcdserverpb.Maintenance", "MoveLeader", "unary";
    Downgrade = "etcdserverpb.Maintenance", "Downgrade", "unary";
    AuthEnable = "etcdserverpb.Auth", "AuthEnable", "unary";
    AuthDisable = "etcdserverpb.Auth", "AuthDisable", "unary";
    AuthStatus = "etcdserverpb.Auth", "AuthStatus", "unary";
    Authenticate = "etcdserverpb.Auth", "Authenticate", "unary";
    UserAdd = "etcdserverpb.Auth", "UserAdd", "unary";
    UserGet = "etcdserverpb.Auth", "UserGet", "unary";
    UserList = "etcdserverpb.Auth", "UserList", "unary";
    UserDelete = "etcdserverpb.Auth", "UserDelete", "unary";
    UserChangePassword = "etcdserverpb.Auth", "UserChangePassword", "unary";
    UserGrantRole = "etcdserverpb.Auth", "UserGrantRole", "unary";
    UserRevokeRole = "etcdserverpb.Auth", "UserRevokeRole", "unary";
    RoleAdd = "etcdserverpb.Auth", "RoleAdd", "unary";
    RoleGet = "etcdserverpb.Auth", "RoleGet", "unary";
    RoleList = "etcdserverpb.Auth", "RoleList", "unary";
    RoleDelete = "etcdserverpb.Auth", "RoleDelete", "unary";
    RoleGrantPermission = "etcdserverpb.Auth", "RoleGrantPermission", "unary";
    RoleRevokePermission = "etcdserverpb.Auth", "RoleRevokePermission", "unary";
    Lock = "v3lockpb.Lock", "Lock", "unary";
    Unlock = "v3lockpb.Lock", "Unlock", "unary";
    Campaign = "v3electionpb.Election", "Campaign", "unary";
    Proclaim = "v3electionpb.Election", "Proclaim", "unary";
    ElectionLeader = "v3electionpb.Election", "Leader", "unary";
    Observe = "v3electionpb.Election", "Observe", "server_stream";
    Resign = "v3electionpb.Election", "Resign", "unary";
}

impl Rpc {
    /// The service's full name.
    #[must_use]
    pub const fn service(self) -> &'static str {
        self.labels().0
    }

    /// The method's name as the schema has it.
    #[must_use]
    pub const fn method(self) -> &'static str {
        self.labels().1
    }
}
