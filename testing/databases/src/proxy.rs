//! A TCP proxy that cuts a connection at a chosen step of the protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where to cut. A step is one read of what the client sent; both protocols are of the form
/// request and answer, so that a step is a request, or a pipeline of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Nowhere.
    Nothing,
    /// Before the request of this step (from 0) reaches the server.
    Request(usize),
    /// After the server has answered the request of this step; the answer is lost.
    Answer(usize),
    /// The request that contains these bytes does not reach the server.
    RequestWith(&'static str),
    /// The server's answer to the request that contains these bytes is lost.
    AnswerTo(&'static str),
    /// From the request that contains these bytes on nothing moves, and no side is told.
    SilenceAt(&'static str),
}

struct State {
    cut: Cut,
    steps: usize,
    done: bool,
    refuses: bool,
    streams: Vec<TcpStream>,
}

/// A proxy in front of one server.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Starts it before the server at this port of loopback.
    pub fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            State { cut: Cut::Nothing, steps: 0, done: false, refuses: false, streams: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if lock(&shared).refuses {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).unwrap();
                connect(&client, &server, &shared);
            }
        });
        Proxy { address, state }
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cuts once, at the next connection that comes to it. Steps are counted anew, over all
    /// connections.
    pub fn cut(&self, cut: Cut) {
        let mut state = lock(&self.state);
        (state.cut, state.steps, state.done) = (cut, 0, false);
    }

    /// Closes every new connection at once, or no more.
    pub fn refuse(&self, refuses: bool) {
        lock(&self.state).refuses = refuses;
    }

    /// Whether the cut was made.
    pub fn has_cut(&self) -> bool {
        lock(&self.state).done
    }

    /// Closes every connection now.
    pub fn close_all(&self) {
        for stream in lock(&self.state).streams.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(PartialEq)]
enum Verdict {
    Pass,
    DropRequest,
    DropAnswer,
    Silence,
}

fn connect(client: &TcpStream, server: &TcpStream, state: &Arc<Mutex<State>>) {
    let copy = |stream: &TcpStream| stream.try_clone().unwrap();
    lock(state).streams.extend([copy(client), copy(server)]);
    let lossy = Arc::new(Mutex::new(false));
    let (from, to, shared, losing) = (copy(client), copy(server), state.clone(), lossy.clone());
    std::thread::spawn(move || requests(from, to, &shared, &losing));
    let (from, to) = (copy(server), copy(client));
    std::thread::spawn(move || answers(from, to, &lossy));
}

/// From the client to the server.
fn requests(
    mut client: TcpStream,
    mut server: TcpStream,
    state: &Mutex<State>,
    lossy: &Mutex<bool>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let verdict = judge(&mut lock(state), &buffer[..length]);
        match verdict {
            Verdict::Pass => {}
            Verdict::DropRequest => break,
            Verdict::DropAnswer => *lossy.lock().unwrap_or_else(PoisonError::into_inner) = true,
            // The test is over before this is.
            Verdict::Silence => std::thread::sleep(Duration::from_secs(600)),
        }
        if server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

/// From the server to the client.
fn answers(mut server: TcpStream, mut client: TcpStream, lossy: &Mutex<bool>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        let lose = *lossy.lock().unwrap_or_else(PoisonError::into_inner);
        if lose || client.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

fn judge(state: &mut State, request: &[u8]) -> Verdict {
    let step = state.steps;
    state.steps += 1;
    if state.done {
        return Verdict::Pass;
    }
    let has = |text: &str| request.windows(text.len()).any(|window| window == text.as_bytes());
    let verdict = match &state.cut {
        Cut::Request(at) if *at == step => Verdict::DropRequest,
        Cut::Answer(at) if *at == step => Verdict::DropAnswer,
        Cut::RequestWith(text) if has(text) => Verdict::DropRequest,
        Cut::AnswerTo(text) if has(text) => Verdict::DropAnswer,
        Cut::SilenceAt(text) if has(text) => Verdict::Silence,
        _ => Verdict::Pass,
    };
    state.done = verdict != Verdict::Pass;
    verdict
}
