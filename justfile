# Tasks of this repository.
check:
    cargo check --all-targets
fmt:
    cargo fmt
lint:
    cargo clippy --all-targets -- -D warnings
test:
    cargo test
# Rewrite generated files: completions, schemas, manual pages, pages of findings, the README's console blocks.
golden:
    GOLDEN=1 cargo test --test golden
# Rewrite the snapshots of command output. Review them with git diff.
snapshots:
    INSTA_UPDATE=always cargo test --test cli --lib
fields:
    scripts/fields.py
# Build release archives into dist/, and the krew manifest with their checksums. scripts/dist.py lists its requirements.
dist *NAMES:
    scripts/dist.py {{NAMES}}
# A real mesh on this machine (needs root): start, test, stop.
lab:
    tests/lab/up
lab-status:
    tests/lab/status
lab-test NAME="":
    cargo test --test lab -- --ignored --test-threads 1 --nocapture {{NAME}}
lab-down:
    tests/lab/down
bench:
    cargo bench
figures:
    scripts/figures.py
