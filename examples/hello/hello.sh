#!/bin/sh
cat /usr/share/hello/greeting
echo "  built on $(cat /usr/share/hello/kernel), run by user $(id -u)"
