#!/bin/bash
# The image's health check: what /readyz says, with the reasons. The image has no client for HTTP.
exec 3<>/dev/tcp/127.0.0.1/9464 || exit 1
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
read -r _ status _ <&3
sed '1,/^\r*$/d' <&3
[[ $status == 200 ]]
