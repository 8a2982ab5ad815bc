//! Objects that exist for the duration of one test.

use super::Lab;

/// Objects applied on top of the lab's mesh. Dropping it deletes them and waits for the proxies.
pub(crate) struct Scenario<'a> {
    lab: &'a Lab,
    yaml: String,
}

impl<'a> Scenario<'a> {
    /// Applies objects and waits until every Envoy has acknowledged them.
    #[track_caller]
    pub(crate) fn apply(lab: &'a Lab, yaml: &str) -> Self {
        let scenario = Self::apply_without_waiting(lab, yaml);
        if scenario.has_pods() {
            lab.wait_for_pods();
        }
        lab.wait_for_envoys();
        scenario
    }

    /// Applies objects without waiting, because some Envoy rejects them or cannot receive them yet.
    #[track_caller]
    pub(crate) fn apply_without_waiting(lab: &'a Lab, yaml: &str) -> Self {
        let output = lab.kubectl_output(&["apply", "-f", "-"], yaml);
        // When the API server rejects one of several objects, others may be stored. Dropping the scenario deletes them.
        let scenario = Self { lab, yaml: yaml.to_owned() };
        assert!(output.status.success(), "{}\n{yaml}", String::from_utf8_lossy(&output.stderr));
        scenario
    }

    fn has_pods(&self) -> bool {
        ["kind: Pod\n", "kind: Deployment"].iter().any(|kind| self.yaml.contains(kind))
    }

    /// The message with which the API server rejects objects in a dry run. Panics if it accepts them.
    pub(crate) fn dry_run_rejection(lab: &Lab, yaml: &str) -> String {
        let output = lab.kubectl_output(&["apply", "--dry-run=server", "-f", "-"], yaml);
        assert!(!output.status.success(), "the API server accepts the objects:\n{yaml}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Scenario<'_> {
    fn drop(&mut self) {
        // A terminating pod would disturb the next test.
        let wait = if self.has_pods() { "--wait=true" } else { "--wait=false" };
        let output = self.lab.kubectl_output(&["delete", "--ignore-not-found", wait, "-f", "-"], &self.yaml);
        assert!(
            !(!output.status.success() && !std::thread::panicking()),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.lab.wait_for_envoys();
    }
}
