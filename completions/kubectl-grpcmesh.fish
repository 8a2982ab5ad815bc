# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kubectl_grpcmesh_global_optspecs
    string join \n kubeconfig= context= cluster= user= s/server= token= as= as-group= as-uid= certificate-authority= client-certificate= client-key= tls-server-name= insecure-skip-tls-verify request-timeout= disable-compression cache-dir= n/namespace= A/all-namespaces i/istio-namespace= revision= color= q/quiet no-headers v/v= h/help V/version
end

function __fish_kubectl_grpcmesh_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kubectl_grpcmesh_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kubectl_grpcmesh_using_subcommand
    set -l cmd (__fish_kubectl_grpcmesh_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -s V -l version -d 'Print version'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "inspect" -d 'Show how the mesh treats gRPC services, and what is wrong'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "route" -d 'Show what becomes of a call: listener, virtual host, rules tried, backends, timeout, retries'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "diff" -d 'Show what files would change, and whether every Envoy runs what the cluster\'s objects say'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "shift" -d 'Move weights between the backends of a rule, and see that the proxies follow'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "explain" -d 'Explain a finding, a response flag, response code details or a gRPC status'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "snapshot" -d 'Save what was read to a file; inspect, route and diff read it later with --from'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "tail" -d 'Decode sidecar access logs: what failed, on whose side, and what to do'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "balance" -d 'Show how calls spread over the pods of a Service'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "doctor" -d 'Check whether this can be used here: rights, versions, logs, reach, completion'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "version" -d 'Show the version of this program, and of istiod and the proxies'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "completion" -d 'Print the completion script of a shell'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s l -l selector -d 'Only Services with these labels, such as app=x,tier!=y' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s o -l output -d 'Output format' -r -f -a "table\t'For people'
wide\t'With evidence and gateways'
json\t'The contract'
yaml\t'The contract as YAML'
name\t'Names of Services only'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l only -d 'Only these findings: codes, beginnings of codes, names (comma-separated)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l skip -d 'Not these findings: GM203, GM2, or GM203=VirtualService/shop/x' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l ignore-file -d 'File with findings to leave out, one a line as in --skip' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l fail-on -d 'Exit 1 when a finding is at least this bad' -r -f -a "error\t'Errors'
warning\t'Warnings and errors'
info\t'Anything'
never\t'Nothing'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l proxies -d 'Ask only so many proxies, spread over the classes of callers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l parallel -d 'Proxies that are asked at a time' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l via -d 'How to reach a proxy\'s admin port' -r -f -a "port-forward\t'The API server\'s port-forward: needs create on pods/portforward'
exec\t'A command in the proxy\'s container: needs create on pods/exec'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l proxy-timeout -d 'Limit for one proxy\'s answers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l from -d 'Read from here: "demo", a snapshot, manifests, a directory, or - (default: the cluster)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s f -l filename -d 'Lay these manifests over the source, as if applied (repeatable; directories; -)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l istio-version -d 'Istio version whose behaviour is assumed, such as 1.27 (default: the one found)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l cluster-domain -d 'Cluster domain (default: istiod\'s, else cluster.local)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l all-services -d 'Services without signs of gRPC too'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l exit-zero -d 'Exit 0 whatever is found'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l live -d 'Ask the Envoys too: what they have, whether they follow, and how calls spread'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l keep-going -d 'Make malformed documents a gap instead of an error'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s H -l header -d 'Header of the call, as name:value (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l caller -d 'Who calls: NS/POD, NS/deploy/NAME, NS, gateway/NS/POD, gateway/NS/NAME' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l protocol -d 'What the client speaks' -r -f -a "grpc\t'gRPC in plain text: the sidecar adds mTLS'
grpc-tls\t'gRPC over TLS of the application\'s own'
http1\t'HTTP/1.1'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l dial -d 'Host that the client resolves and dials, when it is not the authority\'s' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l calls -d 'File with calls, one JSON object a line; - for standard input' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l test -d 'File with tests of routes, a YAML list; exit 1 when one fails' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l via -d 'How to reach the Envoy\'s admin port, with --live' -r -f -a "port-forward\t'The API server\'s port-forward: needs create on pods/portforward'
exec\t'A command in the proxy\'s container: needs create on pods/exec'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s o -l output -d 'Output format' -r -f -a "text\t'The path of the call, for people'
json\t'One object a call, or one for all tests'
junit\t'A report of tests in JUnit\'s XML'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l from -d 'Read from here: "demo", a snapshot, manifests, a directory, or - (default: the cluster)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s f -l filename -d 'Lay these manifests over the source, as if applied (repeatable; directories; -)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l istio-version -d 'Istio version whose behaviour is assumed, such as 1.27 (default: the one found)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l cluster-domain -d 'Cluster domain (default: istiod\'s, else cluster.local)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l live -d 'Ask the caller\'s own Envoy too, and say where it differs'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l keep-going -d 'Make malformed documents a gap instead of an error'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand route" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l against -d 'Another source, to compare the objects of two' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l wait -d 'Wait until all proxies are in step, at most so long' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'The contract'
yaml\t'The contract as YAML'
markdown\t'For a pull request'
github\t'Annotations of a GitHub workflow'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l proxies -d 'Ask only so many proxies, spread over the classes of callers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l parallel -d 'Proxies that are asked at a time' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l via -d 'How to reach a proxy\'s admin port' -r -f -a "port-forward\t'The API server\'s port-forward: needs create on pods/portforward'
exec\t'A command in the proxy\'s container: needs create on pods/exec'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l proxy-timeout -d 'Limit for one proxy\'s answers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l from -d 'Read from here: "demo", a snapshot, manifests, a directory, or - (default: the cluster)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s f -l filename -d 'Lay these manifests over the source, as if applied (repeatable; directories; -)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l istio-version -d 'Istio version whose behaviour is assumed, such as 1.27 (default: the one found)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l cluster-domain -d 'Cluster domain (default: istiod\'s, else cluster.local)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l summary -d 'Sentences only, no YAML'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l full -d 'Also what is the same, and proxies that are in step'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l no-proxies -d 'Do not ask proxies'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l exit-zero -d 'Exit 0 whatever differs'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l keep-going -d 'Make malformed documents a gap instead of an error'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l to -d 'Shares in percent by subset, Service, service/subset or #number; others keep their proportion' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l steps -d 'Shares on the way to the one of --to, each judged before the next' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l rule -d 'The rule, by number or name' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l reason -d 'Why, for the record' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l dry-run -d 'Write nothing: only plan (client), or let the server try it (server)' -r -f -a "client\t'Only the plan'
server\t'The server tries the patch'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l emit -d 'Print what would be written instead of writing it' -r -f -a "patch\t'The JSON Patch'
yaml\t'The object as it would be'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l edit -d 'Write the weights into this manifest and nothing into a cluster; comments and layout stay' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l ack -d 'Whose Envoys must run the new weights (default: all where 50 or fewer obey, else a sample of every class)' -r -f -a "all\t'All that obey'
sampled\t'Some of every class of callers'
none\t'Nobody\'s'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l ack-timeout -d 'How long that may take' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l on-failure -d 'When the Envoys do not follow' -r -f -a "rollback\t'The weights from before'
hold\t'Leave the new weights and say so'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l on-interrupt -d 'On Ctrl-C, or when the program is ended, before the shift is done' -r -f -a "rollback\t'The weights from before'
hold\t'Leave the new weights and say so'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l rollback-to -d 'Where a way back leads' -r -f -a "start\t'What was there before the shift'
previous\t'The step before'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One event a line'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l parallel -d 'Proxies that are asked at a time' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l via -d 'How to reach a proxy\'s admin port' -r -f -a "port-forward\t'The API server\'s port-forward: needs create on pods/portforward'
exec\t'A command in the proxy\'s container: needs create on pods/exec'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l proxy-timeout -d 'Limit for one proxy\'s answers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l interval -d 'Time of a window; each step lasts at least one' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l watch -d 'After the last step, go on judging for so long (default: one window)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l guard -d 'Who counts calls (default: Prometheus where it is given, else counters, else logs)' -r -f -a "prometheus\t'Prometheus, with Istio\'s standard metrics'
counters\t'The callers\' Envoys: tries for each endpoint; no set-up'
logs\t'The callers\' access logs'
none\t'Nobody: steps go by time'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l prometheus -d 'Prometheus: an address, or NAMESPACE/SERVICE[:PORT] to go through the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l prometheus-header-file -d 'A file with headers for its address, one a line: Authorization: Bearer …' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l min-requests -d 'Calls to the canary below which nothing is said' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l max-error-rate -d 'Failed calls to the canary that are allowed, in percent' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l max-p99 -d '99th percentile of the canary\'s latency that is allowed (Prometheus and logs)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l error-status -d 'gRPC statuses that count as failed (Prometheus and logs; default: 2,4,8,12,13,14,15)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l error-flags -d 'Response flags that count as failed, whatever the status, such as UF,UO (Prometheus and logs)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l split-tolerance -d 'By how many percentage points the calls may be split otherwise than the weights say' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l bad-windows -d 'Bad windows in a row that take the weights back' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l max-wait -d 'How long a step waits for a good or a bad window' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l on-stall -d 'When there is none in that time' -r -f -a "rollback\t'The weights from before'
hold\t'Leave the new weights and say so'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l all-rules -d 'All rules that have the backends'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s y -l yes -d 'Do not ask'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l force -d 'Go on although something speaks against it'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l force-owner -d 'Go on although a controller writes the object too'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l history -d 'Shifts of the object, newest first'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l undo -d 'Give the weights back that were there before the last shift'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l resume -d 'Go on with a shift that was cut off: see whether the proxies follow, and end it'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l takeover -d 'Go on with a shift, or start one, although another run may still be at it'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l status -d 'How the last shift stands'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l abort -d 'Ask the run that is at it to take the weights back'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand shift" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l details -d 'Response code details as they stand in the log, read together with the flags' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'The contract'
yaml\t'The contract as YAML'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l list -d 'List everything that can be explained'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s o -l output -d 'File to write; .gz compresses; - is standard output' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l proxies -d 'What the Envoys run too, or of so many of them: for diff, inspect --live and route --live later' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l parallel -d 'Proxies that are asked at a time' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l via -d 'How to reach a proxy\'s admin port' -r -f -a "port-forward\t'The API server\'s port-forward: needs create on pods/portforward'
exec\t'A command in the proxy\'s container: needs create on pods/exec'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l proxy-timeout -d 'Limit for one proxy\'s answers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l from -d 'Read from here: "demo", a snapshot, manifests, a directory, or - (default: the cluster)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s f -l filename -d 'Lay these manifests over the source, as if applied (repeatable; directories; -)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l istio-version -d 'Istio version whose behaviour is assumed, such as 1.27 (default: the one found)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l cluster-domain -d 'Cluster domain (default: istiod\'s, else cluster.local)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l redact -d 'Replace names by pseudonyms, the same one everywhere; not with --proxies'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l keep-going -d 'Make malformed documents a gap instead of an error'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s l -l selector -d 'Pods with these labels' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l since -d 'Only lines newer than this, such as 10m' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l since-time -d 'Only lines after this time, RFC 3339' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l tail -d 'Only so many lines from the end of each log' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l exclude -d 'Not the pods whose names contain this (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l max-log-requests -d 'How many logs may be open at once' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l logs -d 'Saved logs instead of a cluster\'s: files, folders, or - (repeatable; .gz too)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l name -d 'Pod that wrote them, as POD or NAMESPACE/POD (default: from the path)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l log-format -d 'Format of the access log, as it was given to Envoy (default: Istio\'s formats, recognised)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l flag -d 'Only calls with one of these flags (comma-separated)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l grpc-status -d 'Only calls with one of these gRPC statuses, by number or name (comma-separated)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l method -d 'Only paths that contain this' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l upstream -d 'Only clusters or endpoints that contain this' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l min-duration -d 'Only calls that took at least this long, such as 500ms' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l side -d 'Only lines of this side\'s proxies' -r -f -a "client\t'The caller\'s'
server\t'The server\'s'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l where -d 'Only calls for which this holds, in CEL over the fields of -o json' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l fail-on -d 'Exit 1 when more calls than this are faults, such as 1% or 0.01' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One object a line'
csv\t'One row a call'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l from -d 'Names of addresses come from here: "demo", a snapshot, manifests, a directory' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l callers -d 'The proxies of everybody who calls the Service, instead of its own'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s f -l follow -d 'Go on as logs grow; new pods join'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l previous -d 'Logs of the containers before their last restart'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l all -d 'Calls that went well too'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l raw -d 'Show lines that are no access lines, on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l summary -d 'Count instead of showing each call'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l top -d 'Show a table of what goes wrong that is drawn again each second (needs a terminal)'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l join -d 'Bring the lines of a request together, of all proxies that saw it, by its request id'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand tail" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l for -d 'Time between the two readings' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l port -d 'Only this port of the Service' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l log-pattern -d 'Count what this expression (its first group) finds in the callers\' application logs in the same time' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'The contract'
yaml\t'The contract as YAML'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l proxies -d 'Ask only so many proxies, spread over the classes of callers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l parallel -d 'Proxies that are asked at a time' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l via -d 'How to reach a proxy\'s admin port' -r -f -a "port-forward\t'The API server\'s port-forward: needs create on pods/portforward'
exec\t'A command in the proxy\'s container: needs create on pods/exec'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l proxy-timeout -d 'Limit for one proxy\'s answers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand balance" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l prometheus -d 'Whether Prometheus answers, and has Istio\'s metrics: an address, or NAMESPACE/SERVICE[:PORT]' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'The contract'
yaml\t'The contract as YAML'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l parallel -d 'Proxies that are asked at a time' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l via -d 'How to reach a proxy\'s admin port' -r -f -a "port-forward\t'The API server\'s port-forward: needs create on pods/portforward'
exec\t'A command in the proxy\'s container: needs create on pods/exec'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l proxy-timeout -d 'Limit for one proxy\'s answers' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'JSON'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l from -d 'Read from here: "demo", a snapshot, manifests, a directory, or - (default: the cluster)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s f -l filename -d 'Lay these manifests over the source, as if applied (repeatable; directories; -)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l istio-version -d 'Istio version whose behaviour is assumed, such as 1.27 (default: the one found)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l cluster-domain -d 'Cluster domain (default: istiod\'s, else cluster.local)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l client -d 'Only this program; reads nothing'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l keep-going -d 'Make malformed documents a gap instead of an error'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand version" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l kubeconfig -d 'Kubeconfig file' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l context -d 'Context of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l cluster -d 'Cluster of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l user -d 'User of the kubeconfig' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -s s -l server -d 'Address of the API server' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l token -d 'Bearer token' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l as -d 'Act as this user' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l as-group -d 'Act as a member of this group (repeatable)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l as-uid -d 'Act as this UID' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l certificate-authority -d 'File with the server\'s certificate authority' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l client-certificate -d 'File with the client\'s certificate' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l client-key -d 'File with the client\'s key' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l tls-server-name -d 'Name that the server\'s certificate must have' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l request-timeout -d 'Limit for one request, such as 30s (default 10s for the first contact)' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l cache-dir -d 'Accepted as in kubectl; nothing is cached' -r -F
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -s n -l namespace -d 'Namespace' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -s i -l istio-namespace -d 'Namespace of istiod' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l revision -d 'Revision of the control plane whose configuration is meant' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l color -d 'When to use color' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -s v -l v -d 'From 1: every request to the API server, with its status, size and time, on stderr' -r
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l insecure-skip-tls-verify -d 'Do not check the server\'s certificate'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l disable-compression -d 'Ask for answers without compression'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -s A -l all-namespaces -d 'All namespaces'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -s q -l quiet -d 'No progress on stderr'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -l no-headers -d 'Leave out table headings'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand completion" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "inspect" -d 'Show how the mesh treats gRPC services, and what is wrong'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "route" -d 'Show what becomes of a call: listener, virtual host, rules tried, backends, timeout, retries'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "diff" -d 'Show what files would change, and whether every Envoy runs what the cluster\'s objects say'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "shift" -d 'Move weights between the backends of a rule, and see that the proxies follow'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "explain" -d 'Explain a finding, a response flag, response code details or a gRPC status'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "snapshot" -d 'Save what was read to a file; inspect, route and diff read it later with --from'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "tail" -d 'Decode sidecar access logs: what failed, on whose side, and what to do'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "balance" -d 'Show how calls spread over the pods of a Service'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "doctor" -d 'Check whether this can be used here: rights, versions, logs, reach, completion'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "version" -d 'Show the version of this program, and of istiod and the proxies'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "completion" -d 'Print the completion script of a shell'
complete -c kubectl-grpcmesh -n "__fish_kubectl_grpcmesh_using_subcommand help; and not __fish_seen_subcommand_from inspect route diff shift explain snapshot tail balance doctor version completion help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
