//! A network between processes that can be cut, in each direction of each pair by itself.
//!
//! Whoever is to be cut off is reached through a *gate*: a port that hands everything on. A cut
//! link holds back what is sent, as a network does that loses it again and again; what is mended
//! hands it on, to whoever still waits for it. New connections are taken up, and nothing comes
//! back. A severed one ends its connections, as a host does that is told that nobody is there, and
//! takes up none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A party: a node or another server, by number.
pub type Party = usize;

/// Bytes at a time.
const PIECE: usize = 64 << 10;
/// How long a caller may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Which links are cut, and whether that ends connections.
#[derive(Default, Debug)]
struct Cut {
    links: BTreeSet<(Party, Party)>,
    severed: bool,
}

impl Cut {
    fn ends(&self, link: (Party, Party)) -> bool {
        self.severed && self.links.contains(&link)
    }
}

/// A network.
#[derive(Clone)]
pub struct Network(Arc<watch::Sender<Cut>>);

impl Default for Network {
    fn default() -> Network {
        Network(Arc::new(watch::channel(Cut::default()).0))
    }
}

/// Who calls at a gate.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Always the same.
    Known(Party),
    /// Whoever names this address of its own with its first words.
    Says(Vec<(String, Party)>),
}

impl Network {
    /// Cuts these links and mends all others: nothing gets from the first party of each to the
    /// second.
    pub fn cut(&self, links: impl IntoIterator<Item = (Party, Party)>) {
        self.set(links.into_iter().collect(), false);
    }

    /// The same, and their connections end.
    pub fn sever(&self, links: impl IntoIterator<Item = (Party, Party)>) {
        self.set(links.into_iter().collect(), true);
    }

    fn set(&self, links: BTreeSet<(Party, Party)>, severed: bool) {
        self.0.send_modify(|cut| *cut = Cut { links, severed });
    }

    /// Mends all.
    pub fn mend(&self) {
        self.set(BTreeSet::new(), false);
    }

    /// Opens a gate before the server at the port `target` of loopback, which is `party`.
    pub fn gate(&self, runtime: &Handle, (port, target): (u16, u16), party: Party, caller: Caller) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let cuts = self.0.subscribe();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // There may be too many files open at the moment.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let (cuts, caller) = (cuts.clone(), caller.clone());
                tokio::spawn(async move {
                    // Either side may end it at any time.
                    let _ = hand_on(stream, target, party, caller, cuts).await;
                });
            }
        });
    }
}

/// Both directions between one party and all these.
pub fn around(party: Party, others: impl IntoIterator<Item = Party>) -> Vec<(Party, Party)> {
    others.into_iter().flat_map(|other| [(party, other), (other, party)]).collect()
}

type Cuts = watch::Receiver<Cut>;

async fn hand_on(
    stream: TcpStream,
    target: u16,
    party: Party,
    caller: Caller,
    cuts: Cuts,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut from_caller, to_caller) = stream.into_split();
    let mut first = Vec::new();
    let caller = match caller {
        Caller::Known(caller) => caller,
        Caller::Says(names) => {
            let found = timeout(INTRODUCTION, introduced(&mut from_caller, &mut first, &names));
            found.await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))?
        }
    };
    open(&cuts, (caller, party)).await?;
    let server = TcpStream::connect(("127.0.0.1", target)).await?;
    server.set_nodelay(true)?;
    let (from_server, mut to_server) = server.into_split();
    to_server.write_all(&first).await?;
    let here = cuts.clone();
    let there = pump(from_caller, to_server, (caller, party), cuts.clone());
    let back = pump(from_server, to_caller, (party, caller), cuts);
    // When one direction ends, so does the other.
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
        () = severed(here.clone(), (caller, party)) => Ok(()),
        () = severed(here, (party, caller)) => Ok(()),
    }
}

/// Reads until the caller has named itself.
async fn introduced(
    from: &mut OwnedReadHalf,
    first: &mut Vec<u8>,
    names: &[(String, Party)],
) -> std::io::Result<Party> {
    loop {
        if from.read_buf(first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let says = |name: &str| first.windows(name.len()).any(|part| part == name.as_bytes());
        // Of two addresses one may be the beginning of the other.
        let named = names.iter().filter(|(name, _)| says(name));
        if let Some((_, party)) = named.max_by_key(|(name, _)| name.len()) {
            return Ok(*party);
        }
    }
}

/// Waits until a link is whole, or its connections end.
async fn open(cuts: &Cuts, link: (Party, Party)) -> std::io::Result<()> {
    let known = |cut: &Cut| !cut.links.contains(&link) || cut.ends(link);
    let mut cuts = cuts.clone();
    match cuts.wait_for(known).await {
        Ok(cut) if !cut.ends(link) => Ok(()),
        _ => Err(std::io::ErrorKind::ConnectionReset.into()),
    }
}

/// Waits until a link is severed.
async fn severed(mut cuts: Cuts, link: (Party, Party)) {
    let _ = cuts.wait_for(|cut| cut.ends(link)).await;
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: (Party, Party),
    cuts: Cuts,
) -> std::io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        if from.read_buf(&mut piece).await? == 0 {
            // That it ended is said on the link, too.
            return open(&cuts, link).await;
        }
        open(&cuts, link).await?;
        to.write_all(&piece).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports;

    fn echo(runtime: &Handle, port: u16) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
    }

    /// What comes back, within a moment or, where something has to, a while.
    async fn asks(stream: &mut TcpStream, what: &[u8], wait: Duration) -> Option<Vec<u8>> {
        stream.write_all(what).await.unwrap();
        let mut back = vec![0; 64];
        let read = timeout(wait, stream.read(&mut back)).await.ok()?;
        back.truncate(read.unwrap());
        Some(back)
    }

    async fn hears(stream: &mut TcpStream, what: &[u8]) -> Vec<u8> {
        asks(stream, what, Duration::from_secs(20)).await.expect("the link is whole")
    }

    async fn ends(stream: &mut TcpStream) -> bool {
        let mut back = [0; 8];
        let read = timeout(Duration::from_secs(20), stream.read(&mut back)).await;
        matches!(read.expect("it ends"), Ok(0) | Err(_))
    }

    async fn nothing(stream: &mut TcpStream, what: &[u8]) -> bool {
        asks(stream, what, Duration::from_millis(300)).await.is_none()
    }

    #[test]
    fn links_are_cut_by_direction_and_mended() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (first, network) = (ports(2), Network::default());
        echo(runtime.handle(), first + 1);
        let names = vec![("host:1".to_owned(), 1), ("host:12".to_owned(), 2)];
        network.gate(runtime.handle(), (first, first + 1), 0, Caller::Says(names));
        runtime.block_on(async {
            let connect = || TcpStream::connect(("127.0.0.1", first));
            let (mut one, mut two) = (connect().await.unwrap(), connect().await.unwrap());
            assert_eq!(hears(&mut one, b"I am host:1.").await, b"I am host:1.");
            assert_eq!(hears(&mut two, b"I am host:12").await, b"I am host:12");
            network.cut([(1, 0)]);
            assert!(nothing(&mut one, b"hears nobody").await);
            assert_eq!(hears(&mut two, b"hears me").await, b"hears me");
            network.mend();
            assert_eq!(hears(&mut one, b"").await, b"hears nobody", "held, not lost");
            network.cut(around(0, [2]));
            assert!(nothing(&mut two, b"comes").await);
            network.cut([(0, 2)]);
            assert!(nothing(&mut two, b" in").await, "the answer is held");
            let mut late = connect().await.unwrap();
            assert!(nothing(&mut late, b"I am host:12").await);
            network.mend();
            assert!(hears(&mut two, b"").await.starts_with(b"comes"));
            network.sever(around(0, [1]));
            assert!(ends(&mut one).await);
            let mut refused = connect().await.unwrap();
            let _ = refused.write_all(b"I am host:1.").await;
            assert!(ends(&mut refused).await);
            network.mend();
            let mut anew = connect().await.unwrap();
            assert_eq!(hears(&mut anew, b"I am host:1.").await, b"I am host:1.");
        });
    }
}
