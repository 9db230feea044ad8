# fork.sh SERVER ARGUMENT…: let the server, which is started if there is none, fork a Python with these arguments; its
# exit code. `mkfifo` makes one server of two that are wanted at once.
requests=/run/forks
server=$1
shift
mkfifo $requests 2>/dev/null && { $server $requests </dev/null >$requests.log 2>&1 & }
printf '%s\0' "$@" >$requests.$$.arguments
mkfifo $requests.$$
echo $$ >$requests
read -r code <$requests.$$
rm $requests.$$ $requests.$$.arguments
exit "$code"
