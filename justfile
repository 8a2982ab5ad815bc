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
# Attack the program with random damaged files for this many seconds.
hostile SECONDS="60":
    HOSTILE_SECONDS={{SECONDS}} cargo test --test hostile -- --ignored --nocapture damaged_files_for_a_while
# Print the cost of twice the input for each shape that once grew faster than its size.
scaling:
    cargo test --test hostile -- --ignored --nocapture --test-threads 1 scaling_table
# Run every fuzz target for this many seconds (needs a nightly compiler and cargo-fuzz).
fuzz SECONDS="60":
    for target in $(cargo +nightly fuzz list); do \
        mkdir -p fuzz/corpus/$target fuzz/seeds/$target; \
        cargo +nightly fuzz run $target fuzz/corpus/$target fuzz/seeds/$target -- -max_total_time={{SECONDS}} -timeout=10 -rss_limit_mb=2048 || exit 1; \
    done
figures:
    scripts/figures.py
