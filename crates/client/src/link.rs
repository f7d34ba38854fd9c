//! A connection whose calls name a keyspace.

use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The metadata entry that names a keyspace.
const KEYSPACE: &str = "quorate-keyspace";

/// What calls go out by.
pub type Link = InterceptedService<Channel, Named>;

/// Adds the name of a keyspace to every call, and how long it is waited for.
#[derive(Clone, Default, Debug)]
pub struct Named {
    keyspace: Option<MetadataValue<Ascii>>,
    within: Option<Duration>,
}

impl Named {
    /// Of this keyspace, or of none in particular. A name that is no text is sent as one that no
    /// keyspace has.
    pub(crate) fn of(keyspace: Option<&str>) -> Named {
        let unreadable = || MetadataValue::from_static("?");
        let keyspace = keyspace.map(|name| name.parse().unwrap_or_else(|_| unreadable()));
        Named { keyspace, within: None }
    }

    /// The same, for calls that are waited for so long.
    pub(crate) fn within(self, time: Duration) -> Named {
        Named { within: Some(time), ..self }
    }
}

impl Interceptor for Named {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(name) = &self.keyspace {
            request.metadata_mut().insert(KEYSPACE, name.clone());
        }
        if let Some(time) = self.within {
            request.set_timeout(time);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_told_the_keyspace_and_how_long_it_is_waited_for() {
        let sent = |mut named: Named| named.call(Request::new(())).unwrap();
        let told = sent(Named::of(Some("stock")).within(Duration::from_millis(1_500)));
        assert_eq!(told.metadata().get(KEYSPACE).unwrap(), "stock");
        assert_eq!(told.metadata().get("grpc-timeout").unwrap(), "1500000u");
        assert!(sent(Named::of(None)).metadata().is_empty());
    }
}
