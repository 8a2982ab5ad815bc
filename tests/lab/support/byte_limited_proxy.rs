//! A TCP proxy on loopback that forwards a limited number of response bytes from the API server and then closes every
//! connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Address of the lab's API server, see `lab/settings.py`.
const API_SERVER: (&str, u16) = ("127.0.0.1", 16443);

/// The proxy. Its threads end with the test process.
pub(crate) struct ByteLimitedProxy {
    port: u16,
}

impl ByteLimitedProxy {
    /// Starts a proxy that forwards `bytes` of responses, counted over all connections.
    pub(crate) fn new(bytes: i64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let remaining = Arc::new(AtomicI64::new(bytes));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let remaining = Arc::clone(&remaining);
                std::thread::spawn(move || forward(client, &remaining));
            }
        });
        Self { port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn forward(client: TcpStream, remaining: &AtomicI64) {
    let Ok(server) = TcpStream::connect(API_SERVER) else { return };
    let (mut requests, mut upstream) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut requests, &mut upstream));
    let (mut server, mut client) = (server, client);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let previous = remaining.fetch_sub(i64::try_from(count).unwrap(), Ordering::SeqCst);
        if previous <= 0 || client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
