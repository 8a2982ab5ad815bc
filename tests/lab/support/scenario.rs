//! Objects that are there for the time of one test.

use super::Lab;

/// Objects on top of the lab's mesh; dropping it takes them away and puts back what they changed.
pub(crate) struct Scenario<'a> {
    lab: &'a Lab,
    yaml: String,
}

impl<'a> Scenario<'a> {
    /// Applies objects and waits until every Envoy runs them.
    #[track_caller]
    pub(crate) fn apply(lab: &'a Lab, yaml: &str) -> Self {
        let scenario = Self::apply_without_waiting(lab, yaml);
        if scenario.has_pods() {
            lab.wait_for_pods();
        }
        lab.wait_for_envoys();
        scenario
    }

    /// Applies objects that some Envoy will not take, or not yet.
    #[track_caller]
    pub(crate) fn apply_without_waiting(lab: &'a Lab, yaml: &str) -> Self {
        let output = lab.kubectl_raw(&["apply", "-f", "-"], yaml);
        // Of several objects some may be stored when one is refused: they go, too.
        let scenario = Self { lab, yaml: yaml.to_owned() };
        assert!(output.status.success(), "{}\n{yaml}", String::from_utf8_lossy(&output.stderr));
        scenario
    }

    fn has_pods(&self) -> bool {
        ["kind: Pod\n", "kind: Deployment"].iter().any(|kind| self.yaml.contains(kind))
    }

    /// What the API server says to objects that it should refuse; nothing is stored.
    pub(crate) fn refused(lab: &Lab, yaml: &str) -> String {
        let output = lab.kubectl_raw(&["apply", "--dry-run=server", "-f", "-"], yaml);
        assert!(!output.status.success(), "the server takes it:\n{yaml}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Scenario<'_> {
    fn drop(&mut self) {
        // A pod that still ends would be there for the next test.
        let wait = if self.has_pods() { "--wait=true" } else { "--wait=false" };
        let output = self.lab.kubectl_raw(&["delete", "--ignore-not-found", wait, "-f", "-"], &self.yaml);
        assert!(
            !(!output.status.success() && !std::thread::panicking()),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.lab.wait_for_envoys();
    }
}
