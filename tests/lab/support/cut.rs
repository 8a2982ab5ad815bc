//! A proxy on loopback that passes so many bytes of the server's answers and then closes every connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Port of the lab's API server, see `lab/settings.py`.
const API: (&str, u16) = ("127.0.0.1", 16443);

/// The proxy; its threads end with the test.
pub(crate) struct Cut {
    port: u16,
}

impl Cut {
    /// Passes `bytes` of answers, all connections together.
    pub(crate) fn new(bytes: i64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicI64::new(bytes));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let left = Arc::clone(&left);
                std::thread::spawn(move || pass(client, &left));
            }
        });
        Self { port }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn pass(client: TcpStream, left: &AtomicI64) {
    let Ok(server) = TcpStream::connect(API) else { return };
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut server, mut client) = (server, client);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let count_left = left.fetch_sub(i64::try_from(count).unwrap(), Ordering::SeqCst);
        if count_left <= 0 || client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
