//! The plugin as krew installs it: run and completed by kubectl, and completed by shells.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::Lab;

/// A folder that is removed when the test ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) -> String {
    let output: Output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Packs the program and installs the archive below `root`: checksum, archive, `store`, link in `bin`.
fn install(root: &Path) {
    let project = env!("CARGO_MANIFEST_DIR");
    let (dist, program) = (root.join("dist"), root.join("program"));
    std::fs::create_dir_all(root).unwrap();
    // A release is stripped too, and packing debug information would take long.
    run(Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_kubectl-grpcmesh")));
    run(Command::new("python3").arg(format!("{project}/scripts/dist.py")).args([
        "--pack",
        "linux_amd64",
        program.to_str().unwrap(),
        dist.to_str().unwrap(),
    ]));
    let name = format!("grpcmesh_v{}_linux_amd64.tar.gz", env!("CARGO_PKG_VERSION"));
    run(Command::new("sha256sum").args(["-c", &format!("{name}.sha256")]).current_dir(&dist));
    let listing = run(Command::new("tar").args(["-tvzf", &name]).current_dir(&dist));
    let members: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    let modes_and_names: Vec<(&str, &str)> =
        members.iter().map(|columns| (columns[0], *columns.last().unwrap())).collect();
    assert_eq!(modes_and_names, [("-rw-r--r--", "LICENSE"), ("-rwxr-xr-x", "kubectl-grpcmesh")]);
    let store = root.join("store/grpcmesh").join(concat!("v", env!("CARGO_PKG_VERSION")));
    let bin = root.join("bin");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::create_dir_all(&bin).unwrap();
    run(Command::new("tar").arg("-xzf").arg(dist.join(&name)).arg("-C").arg(&store));
    std::os::unix::fs::symlink(store.join("kubectl-grpcmesh"), bin.join("kubectl-grpcmesh")).unwrap();
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
#[expect(clippy::disallowed_methods, reason = "kubectl is found on PATH")]
fn kubectl_runs_and_completes_the_installed_plugin() {
    let lab = Lab::connect();
    let scratch = Scratch(std::env::temp_dir().join(format!("grpcmesh-krew-{}", std::process::id())));
    install(&scratch.0);
    let bin = scratch.0.join("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let kubectl = |arguments: &[&str]| {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("PATH", &path).env("KUBECONFIG", lab.kubeconfig()).env("HOME", &scratch.0);
        run(&mut command)
    };
    assert!(kubectl(&["grpcmesh", "version", "--client"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(kubectl(&["plugin", "list"]).contains("kubectl-grpcmesh"));

    // Without the completion program, kubectl completes nothing.
    assert!(!kubectl(&["__complete", "grpcmesh", "in"]).contains("inspect"));
    let installed = kubectl(&["grpcmesh", "completion", "install"]);
    assert!(installed.contains("kubectl_complete-grpcmesh -> kubectl-grpcmesh"), "{installed}");
    for (arguments, expected) in [
        (&["in"][..], "inspect\t"),
        (&["inspect", "--only", "GM20"], "GM203\tsubset-undefined"),
        (&["inspect", "-n", "s"], "shop"),
        (&["balance", "-n", "shop", "ec"], "echo\tService"),
        (&["balance", "-A", "ech"], "echo.shop"),
        (&["inspect", "--from", "demo", "-n", "shop", "check"], "checkout\tService"),
        (&["shift", "--from-nowhere", ""], ":"),
        (&["explain", "UNAV"], "UNAVAILABLE\t14"),
        (&["shift", "x", "--on-f"], "--on-failure"),
    ] {
        let candidates = kubectl(&[&["__complete", "grpcmesh"], arguments].concat());
        assert!(candidates.contains(expected), "{arguments:?}: {candidates}");
    }
    // An unreachable cluster: no candidates, no messages, no waiting.
    let start = std::time::Instant::now();
    let candidates = kubectl(&["__complete", "grpcmesh", "balance", "--server", "https://10.255.255.1:1", "e"]);
    assert!(!candidates.contains("echo") && start.elapsed().as_secs() < 3, "{candidates} {:?}", start.elapsed());
    let uninstalled = kubectl(&["grpcmesh", "completion", "uninstall"]);
    assert!(uninstalled.contains("removed"), "{uninstalled}");
    assert!(!bin.join("kubectl_complete-grpcmesh").exists());
}

/// Types into real shells. Each shell draws its command line differently, so the test runs the completed line and reads its
/// output.
#[test]
#[ignore = "needs the lab: tests/lab/up"]
#[expect(clippy::disallowed_methods, reason = "shells are found on PATH")]
fn shells_complete_the_program() {
    let lab = Lab::connect();
    let scratch = Scratch(std::env::temp_dir().join(format!("grpcmesh-shells-{}", std::process::id())));
    let bin = scratch.0.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubectl-grpcmesh"), bin.join("kubectl-grpcmesh")).unwrap();
    for (shell, load) in [
        ("bash --norc --noprofile", "eval \"$(kubectl-grpcmesh completion bash)\""),
        ("zsh -f -i", "autoload -Uz compinit; compinit -u; source <(kubectl-grpcmesh completion zsh)"),
        ("fish --no-config", "kubectl-grpcmesh completion fish | source"),
    ] {
        let mut shell_arguments = shell.split(' ');
        let mut command = Command::new(shell_arguments.next().unwrap());
        command
            .args(shell_arguments)
            .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
            .env("KUBECONFIG", lab.kubeconfig())
            .env("HOME", &scratch.0)
            .env("TERM", "xterm");
        let mut terminal = rexpect::session::spawn_command(command, Some(20_000)).unwrap();
        let mut send = |typed: &str, expected: &str| {
            terminal.send(typed).unwrap();
            terminal.flush().unwrap();
            terminal.exp_string(expected).unwrap_or_else(|error| panic!("{shell}: {typed:?}: {error}"));
            // Type the next line only after the shell reads input again.
            terminal.send_line("").unwrap();
            terminal.send_line("echo is-$(expr 40 + 2)").unwrap();
            terminal.exp_string("is-42").unwrap_or_else(|error| panic!("{shell}: {error}"));
        };
        send(&format!("{load}; echo loaded-$(expr 1 + 1)\r"), "loaded-2");
        send("kubectl-grpcmesh vers\t--client\r", concat!("client      ", env!("CARGO_PKG_VERSION")));
        send("kubectl-grpcmesh explain UNAVAIL\t\r", "the server cannot be reached");
        send("kubectl-grpcmesh inspect --from demo -n shop check\t\r", "Service shop/checkout");
        let healthy = format!("kubectl-grpcmesh inspect --from {}/src/demo/heal\t-A\r", env!("CARGO_MANIFEST_DIR"));
        send(&healthy, "8 Services: ");
        send("kubectl-grpcmesh inspect -n shop led\t\r", "ledger.shop.svc.cluster.local");
        terminal.send_line("exit").unwrap();
        terminal.exp_eof().unwrap_or_else(|error| panic!("{shell}: {error}"));
    }
}
