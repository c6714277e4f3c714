//! Real servers on loopback: `git daemon`, smart HTTP around `git http-backend`, sshd, and one that says nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::kit::git;

/// Serves each connection by a program that speaks over its standard input and output, as inetd does. The port is bound
/// once and held, so nothing else can get it, and no connection comes too early.
fn each_by(command: impl Fn() -> Command + Send + Sync + 'static) -> Listener {
    Listener::start(move |stream| {
        let output = OwnedFd::from(stream.try_clone().unwrap());
        let mut command = command();
        command.stdin(OwnedFd::from(stream)).stdout(output).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        drop(command);
        child.wait().unwrap();
    })
}

/// `git daemon` over everything in `root`.
pub(super) fn git_daemon(root: &Path) -> Listener {
    let program = PathBuf::from(git(root, &["--exec-path"])).join("git-daemon");
    let root = root.to_owned();
    each_by(move || {
        let mut command = Command::new(&program);
        command.args(["--inetd", "--export-all"]).arg(format!("--base-path={}", root.display())).arg(&root);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command
    })
}

/// sshd with one user key and one host key; `None` where there is no sshd.
pub(super) fn sshd(dir: &Path) -> Option<Listener> {
    let program = Path::new("/usr/sbin/sshd");
    if !program.exists() {
        return None;
    }
    if rustix::process::geteuid().is_root() {
        let _ = fs::create_dir_all("/run/sshd");
    }
    keygen(&dir.join("host"));
    keygen(&dir.join("user"));
    fs::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
    let text = format!(
        "HostKey \"{0}/host\"\nAuthorizedKeysFile \"{0}/authorized\"\nPidFile none\nUsePAM no\nStrictModes no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
        dir.display()
    );
    fs::write(dir.join("sshd_config"), text).unwrap();
    let config = dir.join("sshd_config");
    let server = each_by(move || {
        let mut command = Command::new(program);
        command.args(["-i", "-q", "-f"]).arg(&config);
        command
    });
    let host = fs::read_to_string(dir.join("host.pub")).unwrap();
    fs::write(dir.join("known_hosts"), format!("[127.0.0.1]:{} {host}", server.address.port())).unwrap();
    Some(server)
}

/// A new key pair at `path`.
pub(super) fn keygen(path: &Path) {
    let status = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(status.success());
}

/// A TCP server in threads of its own; it ends with this value.
pub(super) struct Listener {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, requests, serve) = (stop.clone(), requests.clone(), Arc::new(serve));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    requests.fetch_add(1, Ordering::AcqRel);
                    let serve = serve.clone();
                    thread::spawn(move || serve(stream));
                }
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

/// Accepts, and says nothing until the client goes.
pub(super) fn silent() -> Listener {
    Listener::start(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

/// Sends every client elsewhere.
pub(super) fn redirecting(to: String) -> Listener {
    Listener::start(move |mut stream| {
        let path = read_head(&mut BufReader::new(&stream)).0;
        let _ = write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {to}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    })
}

/// Smart HTTP over everything in `root`, for those who send `user:password`.
pub(super) fn smart_http(root: &Path, user_and_password: Arc<Mutex<String>>) -> Listener {
    let root = root.to_owned();
    Listener::start(move |stream| {
        let expected = format!("Basic {}", STANDARD.encode(&*user_and_password.lock().unwrap()));
        serve_http(stream, &root, &expected);
    })
}

/// The target and the headers of a request.
fn read_head(reader: &mut impl BufRead) -> (String, String, Vec<(String, String)>) {
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            return (target, method, headers);
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

fn serve_http(mut stream: TcpStream, root: &Path, expected: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (target, method, headers) = read_head(&mut reader);
    let header = |name: &str| headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str());
    if header("authorization") != expected {
        let _ = write!(
            stream,
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"flows\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        return;
    }
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let split = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output[..split]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n");
    let _ = stream.write_all(&output[split + 4..]);
}
