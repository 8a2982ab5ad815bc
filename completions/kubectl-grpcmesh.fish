complete --keep-order --exclusive --command kubectl-grpcmesh --arguments "(COMPLETE=fish kubectl-grpcmesh -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
