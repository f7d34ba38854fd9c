//! A connection whose calls name a keyspace.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The metadata entry that names a keyspace.
const KEYSPACE: &str = "quorate-keyspace";

/// What calls go out by.
pub type Link = InterceptedService<Channel, Named>;

/// Adds the name of a keyspace to every call.
#[derive(Clone, Default, Debug)]
pub struct Named(Option<MetadataValue<Ascii>>);

impl Named {
    /// Of this keyspace, or of none in particular. A name that is no text is sent as one that no
    /// keyspace has.
    pub(crate) fn of(keyspace: Option<&str>) -> Named {
        let unreadable = || MetadataValue::from_static("?");
        Named(keyspace.map(|name| name.parse().unwrap_or_else(|_| unreadable())))
    }
}

impl Interceptor for Named {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(name) = &self.0 {
            request.metadata_mut().insert(KEYSPACE, name.clone());
        }
        Ok(request)
    }
}
